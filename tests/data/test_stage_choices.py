"""The plan's choices through the whole stage: packer, overlong, begin and end, positions."""

import re
from collections import Counter

import numpy as np
import pytest
from data_fixture import MARKED, SYNTHETIC, DataFixture, DataRun
from tokenizers import Tokenizer

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.ledger.terminal import summary
from ropewalk.data.tokens import store


@pytest.mark.parametrize("packer", ["window_fill", "best_fit", "concat", "single"])
def test_every_packer_keeps_every_token_and_its_ledger_adds_up(
    data_fixture: DataFixture, packer: str
) -> None:
    result = data_fixture.run(f"data.packer={packer}", *MARKED, "data.sources.notes.piece_len=40")
    plan = result.ledger["plan"]
    assert (plan["packer"], plan["overlong"], plan["begin"], plan["end"]) == (packer, "split", 1, 0)
    documents = 0
    for name, pieces in result.by_source().items():
        lengths, row = result.folders.store(name).length, result.ledger["sources"][name]
        tokens = Counter((d, t) for d, start, size in pieces for t in range(start, start + size))
        train = np.flatnonzero(~result.folders.store(name).heldout).tolist()
        assert tokens == Counter((d, t) for d in train for t in range(int(lengths[d]) + 2))
        assert row["tokens_in_plan"] == int(lengths[train].sum())
        assert (row["marks"], row["cut"], row["dropped"]) == (2 * len(train), 0, 0)
        assert max(length for _, _, length in pieces) <= (40 if name == "notes" else 64)
        documents += len(train)
    assert plan["marks"] == 2 * documents
    assert plan["tokens"] == sum(s["tokens_in_plan"] for s in result.ledger["sources"].values())
    assert plan["tokens"] + plan["marks"] + plan["padding"] == 64 * plan["sequences"]


def test_sequences_hold_each_document_between_begin_and_end(data_fixture: DataFixture) -> None:
    """Read from the rows, without the plan."""
    from transformers import AutoTokenizer

    result = data_fixture.run("data.packer=best_fit", *MARKED, "data.seq_len=1024")
    tokenizer = AutoTokenizer.from_pretrained(str(result.folders.tokenizer))
    sequences = result.folders.sequences()
    texts = []
    for row in (sequences[n] for n in range(len(sequences))):
        for low, high in zip(row.cu_seqlens, row.cu_seqlens[1:], strict=False):
            ids = row.input_ids[low:high].tolist()
            if any(ids):  # else padding
                assert (ids[0], ids[-1]) == (1, 0) and not {0, 1} & set(ids[1:-1])
                assert row.labels[low:high].tolist() == [*ids[1:], -100]
                texts.append(tokenizer.decode(ids[1:-1]))
    paths = [
        p
        for s in ("books", "notes")
        for p in (data_fixture.folder / s).iterdir()
        if not store.is_heldout(p.name, 0.2)
    ]
    assert sorted(texts) == sorted(p.read_text() for p in paths)


@pytest.mark.parametrize("policy", ["truncate", "drop"])
def test_overlong_documents_are_counted_by_source(data_fixture: DataFixture, policy: str) -> None:
    result = data_fixture.run(f"data.overlong={policy}", "data.packer=best_fit")
    for name, pieces in result.by_source().items():
        documents, row = result.folders.store(name), result.ledger["sources"][name]
        train = documents.length[~documents.heldout]
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


def test_dropped_documents_do_not_shift_the_mixture(data_fixture: DataFixture) -> None:
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


def test_an_overlong_document_is_refused_except_in_a_source_of_weight_0(
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


@pytest.mark.parametrize(("override", "value"), [("<s>", "<s>"), ("bos", "bos")])
def test_a_token_that_the_tokenizer_lacks_is_refused_before_a_token_is_written(
    data_fixture: DataFixture, override: str, value: str
) -> None:
    message = (
        rf"^data\.begin is {value}; it must be one token of .* eos \(<\|endoftext\|>\), or unset"
    )
    with pytest.raises(ConfigError, match=message):
        data_fixture.run(f"data.begin={override}")
    assert not list((data_fixture.folder / "cache").rglob("tokens.bin"))


def documents_of(result: DataRun) -> dict[int, list[int]]:
    """The tokens of each document of a plan with one document a sequence."""
    sequences = result.folders.sequences()
    rows = [piece for (piece,) in result.pieces()]
    return {
        row["document"]: sequences.read(number).input_ids[: row["length"]].tolist()
        for number, row in enumerate(rows)
    }


def test_a_separator_of_several_tokens_stands_between_documents(data_fixture: DataFixture) -> None:
    """Ids of a text that is no token of its own, as `<s>` in Llama 3: 45147 and 29."""
    plain = data_fixture.run("data.packer=single", "data.overlong=truncate", output="plain")
    ids = Tokenizer.from_file(str(plain.folders.tokenizer / "tokenizer.json")).encode("<s>").ids
    assert len(ids) > 1
    words = ["data.packer=single", "data.overlong=truncate", f"data.begin={ids}".replace(" ", "")]
    result = data_fixture.run(*words, "data.end=0")
    before, after = documents_of(plain), documents_of(result)
    assert after == {key: [*ids, *text, 0][:64] for key, text in before.items()}
    marks = sum(len(text) for text in after.values()) - sum(
        len(text[: 64 - len(ids)]) for text in before.values()
    )
    assert result.ledger["plan"]["marks"] == marks
    single, one = (data_fixture.run(f"data.end={end}", output=end) for end in ("0", "eos"))
    assert single.folders.plan == one.folders.plan
    with pytest.raises(ConfigError, match=r"^data\.end is 300; 300 is no id of the tokenizer"):
        data_fixture.run("data.end=300")


@pytest.mark.parametrize("value", ["[1,-2]", "[1,a]", "[]", "-1", "1.5"])
def test_what_is_no_token_and_no_id_is_refused(value: str, data_fixture: DataFixture) -> None:
    if value == "1.5":  # text, which the tokenizer lacks
        with pytest.raises(ConfigError, match=r"^data\.end is 1\.5; it must be one token"):
            data_fixture.run(f"data.end={value}")
        return
    with pytest.raises(ConfigError, match=r"^data\.end is .*; it must be a token's string, bos"):
        data_fixture.config(f"data.end={value}")


def test_choices_share_one_token_store_and_have_their_own_plans(
    data_fixture: DataFixture,
) -> None:
    overrides = [
        "data.packer=concat",
        "data.overlong=drop",
        "data.end=eos",
        "data.sources.notes.piece_len=40",
    ]
    results = [
        data_fixture.run(output="o"),
        *(data_fixture.run(override, output=f"o{n}") for n, override in enumerate(overrides)),
    ]
    assert len({str(result.folders.stores) for result in results}) == 1
    assert len({result.folders.plan for result in results}) == 5


def test_a_choice_left_at_its_default_does_not_rename_the_plan(data_fixture: DataFixture) -> None:
    """Plans that are older than a choice are found again."""
    choices = {"packer", "overlong", "piece_len", "begin", "end"}
    overrides: list[tuple[str, ...]] = [(), ("data.packer=concat", "data.end=eos")]
    plans = [data_fixture.run(*o, output=f"o{len(o)}").folders.plan for o in overrides]
    keys = [set(manifest.read(plan).content) & choices for plan in plans]  # type: ignore[union-attr]
    assert keys == [set(), {"packer", "end"}]


def test_skipped_positions_belong_to_the_loader_and_not_to_the_plan(
    data_fixture: DataFixture,
) -> None:
    default = data_fixture.run(output="default")
    result = data_fixture.run("data.pose.target_length=512", output="skips")
    again = data_fixture.run("data.pose.target_length=512", "data.pose.chunks=3", output="skips")
    assert result.folders.plan == default.folders.plan == again.folders.plan
    assert "redone: pose.chunks was 2, is 3" in again.message
    skipping, sequences = result.folders.sequences(), default.folders.sequences()
    numbers = range(len(skipping))
    highest = max(
        int(skipping.read(n, epoch).position_ids.max()) for n in numbers for epoch in range(5)
    )
    assert 400 < highest < 512
    assert all(skipping[n].input_ids.tolist() == sequences[n].input_ids.tolist() for n in numbers)


def test_the_summary_counts_dropped_and_boundary_tokens(data_fixture: DataFixture) -> None:
    result = data_fixture.run("data.overlong=drop", "data.packer=best_fit", "data.end=eos")
    books, lines = result.ledger["sources"]["books"], summary(result.ledger).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("tokens not in the plan"))
    assert re.split(r"  +", lines[head])[2] == "overlong"
    assert re.split(r"  +", lines[head + 1])[::2] == ["books", f"{books['dropped']:,}"]
    assert any("packed by best_fit" in line for line in lines)
    assert f"  and {result.ledger['plan']['marks']} begin and end tokens of documents" in lines
