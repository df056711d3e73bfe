"""The size whose prompt fits a length, from few counts of tokens: each reads a whole prompt."""

from collections.abc import Callable

from ropewalk.eval.ruler.draft import CannotFit

PROBE = 64  # units beyond the least, for the first estimate of the tokens of one
GUESSES = 12  # by proportion; from then on the step doubles, and the remaining range is halved


def largest(tokens: Callable[[int], int], room: int, least: int, most: int) -> int:
    """The size with `tokens(size) <= room < tokens(size + 1)`; `most`, where that fits.

    Each size is guessed from the tokens between the last two. It ends whatever `tokens` is: every
    count narrows the range. Raises: CannotFit when `least` does not fit.
    """
    low, used = least, tokens(least)
    if used > room:
        raise CannotFit(f"its smallest prompt has {used:,} tokens, and {room:,} are left for it")
    high, step, each, guesses = most + 1, PROBE, 1e-3, 0
    while high - low > 1:
        if guesses > GUESSES:
            step = (high - low) // 2 if high <= most else 1 << (guesses - GUESSES)
        guess = min(low + max(step, 1), high - 1)
        count, guesses = tokens(guess), guesses + 1
        each = max((count - used) / (guess - low), each / 8)
        if count <= room:
            low, used = guess, count
        else:
            high = guess
        step = int((room - used) / each)
    return low


def in_steps(tokens: Callable[[int], int], room: int, least: int, most: int, step: int) -> int:
    """The largest multiple of `step` that fits, not below `least`, as RULER looks for it.

    Raises: CannotFit.
    """
    first = -(-least // step)
    return step * largest(lambda steps: tokens(steps * step), room, first, max(first, most // step))
