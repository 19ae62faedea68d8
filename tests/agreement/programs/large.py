"""A module of one file of 2 MB, made here; most work is done behind line 65,535."""

import importlib.util
import pathlib
import sys

FUNCTIONS = 600
LINES = 150  # of a function

HOT = """
def hot_{i}(n):
    x = 0
    for v in range(n):
        x += v * {i} % 13
    return x
"""


def function(i):
    yield f"def cold_{i}(x):"
    for k in range(LINES - 2):
        yield f"    x = x * {k} + {i}  # {k}"
    yield "    return x"


def make(path):
    lines = []
    for i in range(FUNCTIONS):
        lines.extend(function(i))
        if i % 100 == 98:
            lines.extend(HOT.format(i=i).splitlines())
    lines.append("def run(n):")
    lines.append("    while True:")
    for i in range(98, FUNCTIONS, 100):
        lines.append(f"        hot_{i}(n * {i // 100 + 1})")
    for i in range(0, FUNCTIONS, 50):
        lines.append(f"        for _ in range(20): cold_{i}(1)")
    path.write_text("\n".join(lines) + "\n")


def main():
    path = pathlib.Path(sys.argv[1]) / "large_module.py"
    make(path)
    spec = importlib.util.spec_from_file_location("large_module", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print("ready", flush=True)
    module.run(1000)


main()
