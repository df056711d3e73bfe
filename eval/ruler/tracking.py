"""Variable tracking: one value is given to a variable and copied from each to the next."""

from string import ascii_uppercase

from ropewalk.data.random_streams import Purpose
from ropewalk.eval.ruler.draft import Body, Draw, several
from ropewalk.eval.ruler.haystacks import line_places, noise_lines, with_needles
from ropewalk.eval.ruler.niah import ENDLESS
from ropewalk.eval.ruler.wording import Wording

HOPS = 4


class Chain:
    """A draft (draft.py). Units: lines of noise; sentences if exact.

    `letters`: of a variable's name. `places`: the draw that the lines' order comes from.
    """

    most = ENDLESS

    def __init__(
        self, wording: Wording, draw: Draw, letters: int = 5, places: Draw | None = None
    ) -> None:
        self.wording, self.draw, self.places = wording, draw, places or draw
        rng = draw.stream() if letters == 5 else draw.stream(Purpose.RULER_EXAMPLE)
        self.names = several(
            lambda: "".join(rng.choice([*ascii_uppercase], letters)), HOPS + 1, set()
        )
        self.value = str(rng.integers(10_000, 99_999))
        self.references = tuple(self.names)
        self.answer = " ".join(self.names)
        self.least = HOPS + 2

    def body(self, size: int) -> Body:
        lines = noise_lines(self.wording.noise, size, self.draw.exact)
        places = sorted(line_places(self.places, len(lines), HOPS + 1))
        steps = self._steps()
        context = "\n".join(with_needles(lines, places, steps))
        fill = {"query": self.value, "num_v": HOPS + 1}
        message = self.wording.vt.format(context=context, **fill)
        gold = tuple(dict.fromkeys(steps))
        return Body(message, self.wording.vt_prefix.format(**fill), context, gold)

    def _steps(self) -> list[str]:
        first = self.wording.vt_value.format(name=self.names[0], value=self.value)
        pairs = zip(self.names[1:], self.names[:-1], strict=True)
        return [first, *(self.wording.vt_copy.format(name=n, other=o) for n, o in pairs)]
