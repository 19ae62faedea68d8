"""Part of parked.py from 3.11 on."""

# fmt: off
# ruff: noqa: F821


@construct
def except_group():
    try:
        raise ExceptionGroup("text", [ValueError(1), KeyError(2)])
    except* ValueError:
        x = 1
    except* KeyError as e:
        x = 2
        park(x, e)
