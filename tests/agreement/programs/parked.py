"""Threads that stand still inside of one construct each. The lines that the interpreter itself says
they are at go to DIR/frames.json; then "ready"."""

# fmt: off
import asyncio
import contextlib
import functools
import importlib.util
import json
import pathlib
import sys
import threading

GATE = threading.Lock()
GATE.acquire()
ARRIVED = threading.Semaphore(0)
CONSTRUCTS = []


def construct(function):
    CONSTRUCTS.append(function)
    return function


def park(*_, **__):
    ARRIVED.release()
    GATE.acquire()


@construct
def builtin():
    ARRIVED.release()
    GATE.acquire()


@construct
def call_of_many_lines():
    return dict(
        first=1,
        second=park(),
        third=(
            3
        ),
    )


@construct
def chained_calls():
    return (
        "text"
        .upper()
        .replace("T",
                 str(park()))
        .lower()
    )


@construct
def last_argument():
    print(
        1,
        2,
        *[
            3,
            park()
        ],
    )


@construct
def list_comprehension():
    return [
        park()
        for x in range(3)
        if x
    ]


@construct
def nested_comprehension():
    return {
        x: [
            park()
            for y in
            range(x)
        ]
        for x in (1, 2)
    }


@construct
def condition_of_comprehension():
    return {
        x
        for x in range(3)
        if park()
    }


@construct
def generator_expression():
    return sum(
        x
        for x in range(3)
        if x or
        park()
    )


@construct
def generator():
    def outer():
        yield 1
        yield from inner()

    def inner():
        yield 2
        yield (
            park()
        )

    for x in outer():
        if x == 5:
            break


@construct
def generator_that_is_closed():
    def closing():
        try:
            yield 1
        finally:
            park()

    it = closing()
    next(it)
    it.close()


@construct
def coroutine():
    async def outer():
        async with Manager() as m:
            return m

    outer().send(None)


class Manager:
    async def __aenter__(self):
        async for x in self.values():
            park(x)

    async def __aexit__(self, *_):
        pass

    async def values(self):
        yield 1


@construct
def event_loop():
    async def work():
        await asyncio.sleep(0)
        await asyncio.gather(part(), part())

    async def part():
        park()

    asyncio.new_event_loop().run_until_complete(work())


class Guard:
    def __init__(self, at):
        self.at = at

    def __enter__(self):
        if self.at == "enter":
            park()

    def __exit__(self, *_):
        if self.at == "exit":
            park()


@construct
def with_body():
    with Guard(""), \
            Guard(""):
        park()


@construct
def with_enter():
    with Guard(""), \
            Guard("enter"):
        pass


@construct
def with_exit():
    with Guard("exit"):
        x = 1
        x += 1


@construct
def with_exit_and_exception():
    with contextlib.suppress(ValueError), Guard("exit"):
        raise ValueError(
            1
        )


@construct
def try_body():
    try:
        park()
    finally:
        print()


@construct
def except_body():
    try:
        raise ValueError
    except KeyError:
        print()
    except (
        ValueError
    ) as e:
        park(e)


@construct
def behind_except_as():
    for i in range(3):
        try:
            try:
                raise ValueError(i)
            except ValueError as e:
                raise KeyError from e
        except KeyError:
            x = 1
            park(x)


@construct
def else_body():
    try:
        x = 1
    except ValueError:
        x = 2
    else:
        park(x)
    finally:
        x = 3


@construct
def finally_body():
    try:
        raise ValueError
    except ValueError:
        x = 1
    finally:
        x = 2
        park(x)


@construct
def finally_and_return():
    try:
        return 1
    finally:
        park()


def decorator(x):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(
                *arguments
            )

        return wrapper

    return decorate


@construct
def decorated():
    @decorator(1)
    @decorator(
        2
    )
    def innermost(x):
        return park(x)

    innermost(1)


@construct
def decorating():
    @decorator(1)
    @decorator(
        park()
    )
    def never(x):
        return x


@construct
def default_argument():
    def never(
        a=1,
        b=park(),  # noqa: B008
    ):
        return a, b


@construct
def lambdas():
    return (lambda x:
            (lambda y:
             park(y))(x))(
        1
    )


@construct
def sort_key():
    sorted(
        [1, 2],
        key=lambda x:
        park(x),
    )


@construct
def partial_and_map():
    return list(
        map(
            functools.partial(park, 1),
            [1],
        )
    )


@construct
def class_body():
    class Outer:
        x = 1

        class Inner:
            y = park()


class Attributes:
    @property
    def value(self):
        return park()

    def __getattr__(self, name):
        return park(name)

    def __getitem__(self, key):
        return park(key)

    def __add__(self, other):
        return park(other)

    def __lt__(self, other):
        return park(other)

    def __call__(self):
        return park()

    def __del__(self):
        park()


@construct
def get_property():
    return Attributes() \
        .value


@construct
def get_attribute():
    return (
        Attributes()
        .missing
    )


@construct
def subscript():
    a = Attributes()
    return a[
        1:
        2
    ]


@construct
def operator():
    return (
        Attributes()
        +
        1
    )


@construct
def comparison():
    a = Attributes()
    return (
        1 < 2
        and a
        < 3
    )


@construct
def instance_call():
    Attributes()(
    )


@construct
def destructor():
    a = Attributes()
    x = 1
    del a
    return x


@construct
def conditional():
    x = 0
    return (
        1
        if x
        else park()
        if not x
        else 3
    )


@construct
def walrus():
    if (
        x := 1
    ) and (
        y := park()
    ):
        return x + y


@construct
def f_string():
    return f"""
    {1}
    {park()}
    """


@construct
def assertion():
    assert park(), (
        "text"
    )


@construct
def loops():
    for x in range(2):
        while x:
            x -= 1
        else:
            if not x:
                continue
    else:
        park()


@construct
def backslash():
    x = 1 + \
        2 + \
        len([park()])
    return x


@construct
def executed():
    exec(compile("\n\n\nx = [\n    park()\n]\n", "<text>", "exec"), {"park": park})


@construct
def evaluated():
    eval("(1,\n\n2, park())", {"park": park})


@construct
def far_apart():
    lines = ["def far(x):", "    return [", "        x,", *[""] * 500, "        park(),"]
    load("parked_apart.py", "\n".join([*lines, *[""] * 300, "    ]", "far(1)", ""]))


@construct
def other_alphabets():
    try:
        import unicodedata  # noqa: F401  # the parser wants it, and small builds have none
    except ImportError:
        park()
    load("parked_names.py", "def größe():\n    прочее()\ndef прочее():\n    park()\ngröße()\n")


@construct
def deep():
    def down(n):
        if n:
            return down(n - 1)
        return park()

    down(120)


@construct
def imported():
    load("parked_import.py", "park()\n")


@construct
def line_beyond_65535():
    load("parked_lines.py", "\n" * 70000 + "x = [\n    1,\n    park(),\n]\n")


@construct
def function_beyond_65535():
    body = "    x = 1\n" * 300 + "    park()\n"
    load("parked_function.py", "\n" * 70000 + "def far():\n" + body + "\n" * 40 + "far()\n")


def load(name, text):
    path = pathlib.Path(sys.argv[1]) / name
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    module = importlib.util.module_from_spec(spec)
    module.park = park
    spec.loader.exec_module(module)


def more(minor):
    """Constructs that older versions cannot parse."""
    for path in pathlib.Path(__file__).parent.glob("parked_3_*.py"):
        if minor >= int(path.stem.rpartition("_")[2]):
            spec = importlib.util.spec_from_file_location(path.stem, str(path))
            module = importlib.util.module_from_spec(spec)
            module.construct, module.park = construct, park
            spec.loader.exec_module(module)


def frames_of(frame):
    while frame:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        yield name, code.co_filename, frame.f_lineno
        frame = frame.f_back


def main():
    more(sys.version_info.minor)
    for function in CONSTRUCTS:
        threading.Thread(target=function, daemon=True).start()
        ARRIVED.acquire()
    me = threading.get_ident()
    stacks = [list(frames_of(f)) for i, f in sys._current_frames().items() if i != me]
    (pathlib.Path(sys.argv[1]) / "frames.json").write_text(json.dumps(stacks))
    print("ready", flush=True)
    threading.Event().wait()


main()
