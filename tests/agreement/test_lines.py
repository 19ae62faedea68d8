"""Frame by frame: threads that stand still, where the interpreter itself says they are."""

import json
import time

from samplers import dump_ours, dump_theirs, program

# On 3.10 py-spy loses its place in the line table behind instructions that have no line.
WRONG_IN_PY_SPY = {
    (3, 10): {"behind_except_as", "generator_expression", "generator"},
}


def construct_of(stack):
    """The function of parked.py that the thread was started for; the main thread has none."""
    at = [i for i, f in enumerate(stack) if f[0] in ("run", "Thread.run")]
    return stack[at[-1] - 1][0] if at else ""


def by_construct(stacks):
    return {construct_of(s): tuple(map(tuple, s)) for s in stacks}


def test_parked(tools, python, tmp_path, table):
    with program(python.path, "parked", tmp_path) as pid:
        time.sleep(0.3)  # from the last word of each to the lock
        ours = by_construct(dump_ours(tools, pid))
        theirs = None if python.free_threaded else by_construct(dump_theirs(tools, pid))
    want = by_construct(json.loads((tmp_path / "frames.json").read_text()))

    def wrong(dump):
        return {c for c, stack in want.items() if dump.get(c) != stack}

    py_spy = "cannot read it" if theirs is None else f"differs in {len(wrong(theirs))}"
    table.append(
        f"{python.name:8} {'parked':14} {len(want)} stacks of {sum(map(len, want.values()))} frames"
        f"  {len(wrong(ours))} differ from the interpreter's; py-spy {py_spy}"
    )
    assert len(want) >= 50
    for construct in sorted(wrong(ours)):
        assert ours.get(construct) == want[construct], construct
    assert ours.keys() == want.keys() | {""}
    if theirs is not None:
        assert wrong(theirs) <= WRONG_IN_PY_SPY.get(python.version, set())
        assert theirs.keys() == ours.keys()
