"""Question answering: a question, its documents, and others from the same data set."""

import numpy as np

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.eval.ruler.draft import Body, CannotFit, Draw
from ropewalk.eval.ruler.niah import ENDLESS
from ropewalk.eval.ruler.question_files import Question, QuestionSet
from ropewalk.eval.ruler.wording import Wording

IN_FILE_ORDER = 500  # of the questions RULER asks


class Documents:
    """A draft (draft.py). Units: documents.

    In RULER's order the gold documents stand at one place for each number of documents; in an
    exact draft their places are swept.
    """

    def __init__(self, wording: Wording, data: QuestionSet, draw: Draw) -> None:
        self.wording, self.data, self.draw = wording, data, draw
        self.question = self._question()
        self.references = self.question.answers
        self.answer = self.references[0]
        kept = len(self.question.gold)
        if data.source == "hotpotqa":
            kept += len(self.question.near)  # all paragraphs of an item are kept
        self.least = kept
        self.most = len(data.documents) if draw.exact else ENDLESS
        self.others = self._others()

    def _question(self) -> Question:
        """One of the file, or of an order that is drawn once. Raises: CannotFit."""
        questions = self.data.questions
        if not self.draw.exact:
            questions = questions[:IN_FILE_ORDER]
        if self.draw.number >= len(questions):
            raise CannotFit(f"it has {len(questions):,} questions in all; lower eval.ruler.samples")
        if not self.draw.exact:
            return questions[self.draw.number]
        order = generator(Purpose.RULER_QUESTION, self.draw.seed).permutation(len(questions))
        return questions[int(order[self.draw.number])]

    def _others(self) -> list[int]:
        """The documents beside the gold ones, those that are near first."""
        of_the_item = {*self.question.gold, *self.question.near}
        order = self.draw.stream().permutation(len(self.data.documents))
        near = list(self.question.near)
        if self.data.source != "hotpotqa":  # RULER draws from the article; an item's stay in order
            keys = self.draw.stream(Purpose.RULER_ORDER).random(len(near))
            near = [near[number] for number in np.argsort(keys)]
        return near + [int(number) for number in order if number not in of_the_item]

    def body(self, size: int) -> Body:
        numbers = self._exact(size) if self.draw.exact else self._ruler(size)
        texts = [
            self.wording.document.format(i=i, document=self.data.documents[number])
            for i, number in enumerate(numbers, 1)
        ]
        gold = tuple(texts[numbers.index(number)] for number in self.question.gold)
        context = "\n\n".join(texts)
        message = self.wording.qa.format(context=context, query=self.question.text)
        return Body(message, self.wording.qa_prefix, context, gold)

    def _ruler(self, size: int) -> list[int]:
        """Gold first, then shuffled as RULER does; all documents again where they are used up."""
        numbers = [*self.question.gold, *self.others]
        while len(numbers) < size:
            numbers += numbers
        return self.draw.order(numbers[:size])

    def _exact(self, size: int) -> list[int]:
        others = self.draw.order(self.others[: size - len(self.question.gold)])
        places = np.floor(self.draw.depths(len(self.question.gold)) * size).astype(int)
        for place, number in sorted(zip(places.tolist(), self.question.gold, strict=True)):
            others.insert(place, number)
        return others
