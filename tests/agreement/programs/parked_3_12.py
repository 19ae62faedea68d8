"""Part of parked.py from 3.12 on."""

# fmt: off
# ruff: noqa: F821


@construct
def type_parameters():
    class Box[T]:
        value: T = park()

    return Box


@construct
def nested_f_string():
    return f"{
        park()
    }"
