"""What is measured of each model, one file a task, and the registry of all tasks.

task.py          the Task protocol, EvalSuite (the shared inputs), the verdict record
window_loss.py   loss inside and past the window, against the base
position.py      loss by position            context_gain.py  same targets, longer context
perplexity.py    perplexity by length        passkey.py       retrieval of a hidden key
ruler.py         RULER's configurations
json_kv.py       JSON key-value retrieval    needle.py        keyed needles in real text
multi_document_qa.py  synthetic biographies  lost_in_middle.py   answers by depth
effective_length.py   from key-value answers
haystacks.py     what the tasks on haystacks share   retrieval.py  these tasks, tried first
perplexity_by_length.py  the same with intervals and bits per byte
short_context.py loss on short documents   lm_eval_tasks.py   tasks of lm-evaluation-harness
sliding.py       windows that slide          swapped_gain.py  far text of another document
yarn_compat.py, pi_compat.py  as those papers' scripts compute it
far_copy.py      copies by distance          longppl.py       tokens that need long context
texts.py, sliding_windows.py  documents, bytes and windows of these tasks
"""

from ropewalk.eval.tasks.context_gain import ContextGain
from ropewalk.eval.tasks.effective_length import EffectiveLengthTask
from ropewalk.eval.tasks.far_copy import FarCopy
from ropewalk.eval.tasks.json_kv import JsonKeyValue
from ropewalk.eval.tasks.longppl import LongPpl
from ropewalk.eval.tasks.lost_in_middle import LostInMiddle
from ropewalk.eval.tasks.multi_document_qa import MultiDocumentQa
from ropewalk.eval.tasks.needle import Needle
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.perplexity import Perplexity
from ropewalk.eval.tasks.perplexity_by_length import PerplexityByLength
from ropewalk.eval.tasks.pi_compat import PiCompat
from ropewalk.eval.tasks.position import LossByPosition
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.short_context import ShortContext
from ropewalk.eval.tasks.sliding import SlidingPerplexity
from ropewalk.eval.tasks.swapped_gain import SwappedGain
from ropewalk.eval.tasks.task import Task
from ropewalk.eval.tasks.window_loss import WindowLoss
from ropewalk.eval.tasks.yarn_compat import YarnCompat

TASKS: list[Task] = [
    *(LossByPosition(), WindowLoss(), Perplexity(), PerplexityByLength(), ContextGain()),
    *(SwappedGain(), FarCopy(), LongPpl(), PasskeyRetrieval(), JsonKeyValue(), Needle()),
    *(MultiDocumentQa(), LostInMiddle(), Ruler(), EffectiveLengthTask()),
    *(SlidingPerplexity(), YarnCompat(), PiCompat(), ShortContext()),
]
"""In the order of the verdicts and of the page's sections."""
