"""The choices of a plan through the whole stage: packers, what is too long, begin and end, skipped positions."""

import re
from collections import Counter

import numpy as np
import pytest
from data_fixture import MARKED, SYNTHETIC, DataFixture

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.ledger.terminal import summary
from ropewalk.data.tokens import store


@pytest.mark.parametrize("packer", ["window_fill", "best_fit", "concat", "single"])
def test_every_packer_keeps_every_token_and_its_ledger_adds_up(
    data_fixture: DataFixture, packer: str
) -> None:
    result = data_fixture.run(f"data.packer={packer}", *MARKED, "data.sources.notes.piece_len=40")
    told = result.ledger["plan"]
    assert (told["packer"], told["overlong"], told["begin"], told["end"]) == (packer, "split", 1, 0)
    documents = 0
    for name, pieces in result.by_source().items():
        opened, row = result.folders.store(name), result.ledger["sources"][name]
        seen = Counter((d, t) for d, start, length in pieces for t in range(start, start + length))
        train = np.flatnonzero(~opened.heldout).tolist()
        assert seen == Counter((d, t) for d in train for t in range(int(opened.length[d]) + 2))
        assert row["tokens_in_plan"] == int(opened.length[train].sum())
        assert (row["marks"], row["cut"], row["dropped"]) == (2 * len(train), 0, 0)
        assert max(length for _, _, length in pieces) <= (40 if name == "notes" else 64)
        documents += len(train)
    assert told["marks"] == 2 * documents
    assert told["tokens"] == sum(s["tokens_in_plan"] for s in result.ledger["sources"].values())
    assert told["tokens"] + told["marks"] + told["padding"] == 64 * told["sequences"]


def test_sequences_hold_each_document_between_its_marks(data_fixture: DataFixture) -> None:
    """Read back from the rows, without the plan: what stands between a begin and the next end is a document's text."""
    from transformers import AutoTokenizer

    result = data_fixture.run("data.packer=best_fit", *MARKED, "data.seq_len=1024")
    tokenizer, sequences = (
        AutoTokenizer.from_pretrained(str(result.folders.tokenizer)),
        result.folders.sequences(),
    )
    found = []
    for row in (sequences[n] for n in range(len(sequences))):
        for low, high in zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False):
            ids = row.input_ids[low:high].tolist()
            if any(ids):  # else padding
                assert (ids[0], ids[-1]) == (1, 0) and not {0, 1} & set(ids[1:-1])
                assert row.labels[low:high].tolist() == [*ids[1:], -100]
                found.append(tokenizer.decode(ids[1:-1]))
    paths = [
        p
        for s in ("books", "notes")
        for p in (data_fixture.folder / s).iterdir()
        if not store.is_heldout(p.name, 0.2)
    ]
    assert sorted(found) == sorted(p.read_text() for p in paths)


@pytest.mark.parametrize("policy", ["truncate", "drop"])
def test_what_is_too_long_is_counted_by_source(data_fixture: DataFixture, policy: str) -> None:
    result = data_fixture.run(f"data.overlong={policy}", "data.packer=best_fit")
    for name, pieces in result.by_source().items():
        opened, row = result.folders.store(name), result.ledger["sources"][name]
        train = opened.length[~opened.heldout]
        cut = int(np.maximum(train - 64, 0).sum()) if policy == "truncate" else 0
        dropped = train[train > 64] if policy == "drop" else train[:0]
        assert (row["cut"], row["dropped"], row["dropped_documents"]) == (
            cut,
            int(dropped.sum()),
            len(dropped),
        )
        assert all(start == 0 for _, start, _ in pieces)
        assert row["tokens_in_plan"] == int(train.sum()) - cut - int(dropped.sum())
    assert sum(s["cut"] + s["dropped"] for s in result.ledger["sources"].values()) > 100


def test_what_is_dropped_does_not_shift_the_mixture(data_fixture: DataFixture) -> None:
    overrides = (
        "data.sources.books.weight=0.75",
        "data.sources.notes.weight=0.25",
        "data.total_tokens=3000",
    )
    result = data_fixture.run(*overrides, "data.overlong=drop")
    assert {n: row["tokens_in_plan"] for n, row in result.ledger["sources"].items()} == {
        "books": 2250,
        "notes": 750,
    }
    assert result.ledger["sources"]["books"]["dropped"] > 0


def test_too_long_a_document_is_refused_but_not_in_a_source_that_gives_nothing(
    data_fixture: DataFixture,
) -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.overlong is error; document \d\d\.txt of source books has \d+ tokens",
    ):
        data_fixture.run("data.overlong=error")
    overrides = [w.replace("books.weight=0.5", "books.weight=0") for w in SYNTHETIC]
    result = data_fixture.run(
        "data.overlong=error", *overrides, "data.total_tokens=2000", sources=("books",)
    )
    assert result.ledger["sources"]["again"]["tokens_in_plan"] >= 2000


@pytest.mark.parametrize(("override", "said"), [('"<s>"', "<s>"), ("bos", "bos")])
def test_mark_that_the_tokenizer_lacks_is_refused_before_a_token_is_written(
    data_fixture: DataFixture, override: str, said: str
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^data\.begin is {said}; it must be one token of .* <\|endoftext\|>, or unset",
    ):
        data_fixture.run(f"data.begin={override}")
    assert not list((data_fixture.folder / "cache").rglob("tokens.bin"))


def test_choices_share_one_token_store_and_have_plans_of_their_own(
    data_fixture: DataFixture,
) -> None:
    overrides = [
        "data.packer=concat",
        "data.overlong=drop",
        "data.end=eos",
        "data.sources.notes.piece_len=40",
    ]
    made = [
        data_fixture.run(output="o"),
        *(data_fixture.run(override, output=f"o{n}") for n, override in enumerate(overrides)),
    ]
    assert len({str(result.folders.stores) for result in made}) == 1
    assert len({result.folders.plan for result in made}) == 5


def test_a_choice_left_at_its_default_does_not_rename_the_plan(data_fixture: DataFixture) -> None:
    """Plans that were made before there was a choice are found again."""
    choices = {"packer", "overlong", "piece_len", "begin", "end"}
    plain, chosen = (
        data_fixture.run(),
        data_fixture.run("data.packer=concat", "data.end=eos", output="chosen"),
    )
    made = [set(manifest.read(result.folders.plan).content) & choices for result in (plain, chosen)]  # type: ignore[union-attr]
    assert made == [set(), {"packer", "end"}]


def test_skipped_positions_are_the_readers_and_no_part_of_the_plan(
    data_fixture: DataFixture,
) -> None:
    plain = data_fixture.run(output="plain")
    result = data_fixture.run("data.pose.target_length=512", output="skips")
    again = data_fixture.run("data.pose.target_length=512", "data.pose.chunks=3", output="skips")
    assert result.folders.plan == plain.folders.plan == again.folders.plan
    assert "redone: pose.chunks was 2, is 3" in again.message
    found, before = result.folders.sequences(), plain.folders.sequences()
    highest = max(
        int(found.read(n, epoch).position_ids.max())
        for n in range(len(found))
        for epoch in range(5)
    )
    assert 400 < highest < 512
    assert all(
        found[n].input_ids.tolist() == before[n].input_ids.tolist() for n in range(len(found))
    )


def test_summary_tells_what_was_dropped_and_marked(data_fixture: DataFixture) -> None:
    result = data_fixture.run("data.overlong=drop", "data.packer=best_fit", "data.end=eos")
    books, told = result.ledger["sources"]["books"], summary(result.ledger).splitlines()
    at = next(n for n, line in enumerate(told) if line.startswith("tokens not in the plan"))
    assert re.split(r"  +", told[at])[2] == "overlong"
    assert re.split(r"  +", told[at + 1])[::2] == ["books", f"{books['dropped']:,}"]
    assert any("packed by best_fit" in line for line in told)
    assert (
        f"  beside them {result.ledger['plan']['marks']} tokens before and after documents" in told
    )
