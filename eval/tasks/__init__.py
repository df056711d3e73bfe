"""What is measured of each model, one file a task, and the registry of all tasks.

task.py          the Task protocol, EvalSuite (the shared inputs), the verdict record
position.py      loss by position            context_gain.py  same targets, longer context
perplexity.py    perplexity by length        passkey.py       retrieval of a hidden key
ruler.py         RULER's configurations
"""

from ropewalk.eval.tasks.context_gain import ContextGain
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.perplexity import Perplexity
from ropewalk.eval.tasks.position import LossByPosition
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.task import Task

TASKS: list[Task] = [LossByPosition(), Perplexity(), ContextGain(), PasskeyRetrieval(), Ruler()]
"""In the order of the verdicts and of the page's sections."""
