"""Functions and files whose names are hostile to XML, JSON, shells and collapsed stacks."""

import types

NAMES = [
    "<script>alert(1)</script>",
    "a&b<c>\"d\"'e'",
    "]]><!--",
    "semi;colon 7",
    "new\nline",
    "tab\tand\\backslash",
    "日本語_función_🔥",
    "right\u202eto-left",
    "control\x01\x7f",
    "$(reboot)`reboot`",
    "x" * 300,
]


def named(name, body):
    """body, under another name and from a file of that name."""
    code = body.__code__.replace(co_name=name, co_filename="/srv/" + name + ".py")
    if hasattr(code, "co_qualname"):
        code = code.replace(co_qualname=name)
    return types.FunctionType(code, body.__globals__, name)


def body():
    total = 0
    for i in range(20000):
        total = (total + i) % 65521
    return total


if __name__ == "__main__":
    functions = [named(name, body) for name in NAMES]
    print("ready", flush=True)
    while True:
        for function in functions:
            function()
