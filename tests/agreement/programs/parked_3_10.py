"""Part of parked.py from 3.10 on."""

# fmt: off
# ruff: noqa: F821


@construct
def match_statement():
    match {"a": [1, 2]}:
        case {"b": _}:
            x = 1
        case {"a": [
            1,
            y,
        ]}:
            x = y
            park(x)


@construct
def match_guard():
    match 5:
        case int() if (
            park()
        ):
            pass
        case _:
            pass


@construct
def with_parentheses():
    with (
        open("/dev/null") as f,
        open(park() or "/dev/null") as g,
    ):
        return f, g
