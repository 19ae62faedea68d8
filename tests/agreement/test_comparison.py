"""The comparison itself: it finds what a wrong sampler would do."""

import pytest
from samplers import Looks, Rounds
from shares import Bounds, disagreements, shares, strange_roots, worst

BOUNDS = Bounds(points=3, seen=1, torn=0.1, asleep=1, samples=1000)
MAIN = "<module> (a.py:9);main (a.py:7)"
RIGHT = f"""\
{MAIN};work (a.py:2) 3000
{MAIN};work (a.py:3) 2000
{MAIN};K.rest (/lib/b.py:40) 5000
"""


def found(wrong):
    return disagreements(shares(wrong), shares(RIGHT), BOUNDS)


def test_the_same():
    assert found(RIGHT) == []
    assert found(RIGHT.replace("3000", "3100").replace("2000", "1900")) == []


def test_folders_and_frames_of_processes_do_not_matter():
    text = RIGHT.replace("/lib/b.py", "b.py").replace("<module>", 'process 7:"a.py";<module>')
    assert found(text) == []


def test_shares():
    s = shares(RIGHT)
    assert s.samples == 10000
    assert s.own == {"work (a.py)": 0.5, "K.rest (b.py)": 0.5}
    assert s.total["main (a.py)"] == 1
    assert s.line["work (a.py:3)"] == 0.2
    assert s.call["main (a.py:7)"] == 1


def test_a_function_in_a_stack_twice_counts_once():
    s = shares("f (a.py:1);f (a.py:1);f (a.py:2) 4\ng (a.py:9) 4\n")
    assert s.total["f (a.py)"] == 0.5
    assert s.call["f (a.py:1)"] == 0.5


def test_who_waits_is_not_counted():
    s = shares(
        "f (a.py:1);wait (/lib/threading.py:5) 4\n"
        "f (a.py:1);EpollSelector.select (selectors.py:5) 4\n"
        "f (a.py:1);wait (mine.py:5) 4\n"
    )
    assert s.own == {"wait (mine.py)": 1}
    assert (s.samples, s.asleep) == (4, 4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("5000", "6000", "own share of"),
        (":3) 2000", ":2) 2000", "line share of work (a.py:"),
        (":40)", ":41)", "never saw K.rest (b.py:4"),
        (":7)", ":8)", "never saw main (a.py:"),
        ("K.rest", "rest", "own share of"),
        ("main (a.py:7);K.rest", "K.rest", "total share of main"),
        ("3000", "2600\nwork (a.py:2) 400", "total share of main"),
        ("3000", "2980\nwork (a.py:2) 20", "do not begin where"),
        ("3000", "3000\nrun (a.py:1);Event.wait (threading.py:9) 200", "200 of our stacks"),
        (RIGHT, "", "0 samples"),
    ],
)
def test_what_is_wrong_is_found(old, new, said):
    assert RIGHT.count(old) >= 1
    assert any(said in sentence for sentence in found(RIGHT.replace(old, new)))


def test_the_worst():
    text = RIGHT.replace("5000", "5200").replace("2000", "1900").replace("3000", "2900")
    assert worst(shares(text), shares(RIGHT), "line") == (pytest.approx(2), "K.rest (b.py:40)")


def test_roots():
    torn = shares(RIGHT + "work (a.py:2) 50\n")
    assert strange_roots(torn, shares(RIGHT)) == pytest.approx(50 / 10050 * 100)
    assert strange_roots(shares(RIGHT), torn) == 0


def test_rounds_add_up():
    rounds = Rounds()
    assert rounds.add("a 1\n", Looks(100, 1, 5)) == ["a 1\n", Looks(100, 1, 5)]
    assert str(rounds) == ""
    assert rounds.add("b 1\n", Looks(100, 0, 0)) == ["a 1\nb 1\n", Looks(200, 1, 5)]
    assert rounds.wanted()
    rounds.add("c 1\n", Looks(100, 0, 0))
    assert not rounds.wanted()
    assert str(rounds) == "  [3 rounds, 0 late]"


def test_late_rounds_count_only_where_there_is_no_other():
    rounds = Rounds()
    assert rounds.add("a 1\n", Looks(100, 0, 60)) == ["a 1\n", Looks(100, 0, 60)]
    assert rounds.add("b 1\n", Looks(100, 0, 60)) == ["a 1\nb 1\n", Looks(200, 0, 120)]
    assert rounds.in_vain()
    assert rounds.add("c 1\n", Looks(100, 0, 1)) == ["c 1\n", Looks(100, 0, 1)]
    assert not rounds.in_vain()
    for _ in range(3):
        assert rounds.wanted()
        rounds.add("d 1\n", Looks(100, 0, 60))
    assert not rounds.wanted()
