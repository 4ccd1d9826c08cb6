#!/usr/bin/env python3
"""The plain loop of benches/scrape.rs in Python, on the same log: megabytes a second of one core.

The expressions are read from scrape.rs, and the log comes from the same generator, so that the two cannot drift apart.
"""
import pathlib
import re
import time

SOURCE = (pathlib.Path(__file__).parent / "scrape.rs").read_text()


def constant(name, item):
    """The strings of a constant of scrape.rs."""
    start = SOURCE.index(f"const {name}:")
    return re.findall(item, SOURCE[start : SOURCE.index("\n];", start)], re.M)


def expressions():
    return [a or b for a, b in constant("EXPRESSIONS", r'^    r(?:#"(.*)"#|"(.*)"),$')]


def log(size):
    state = 1

    def draw(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % n

    metric, other = (
        [line.replace("\\t", "\t") for line in constant(name, r'^    "(.*)",$')] for name in ("METRIC_LINES", "OTHER_LINES")
    )
    lines, total, number = [], 0, 0
    while total < size:
        a, b, which = draw(100_000), draw(100_000), draw(4)
        line = (metric if number % 20 == 19 else other)[which].replace("{a}", str(a)).replace("{b}", str(b))
        lines.append(line)
        total += len(line) + 1
        number += 1
    return lines, total


def main():
    compiled = [re.compile(e) for e in expressions()]
    assert len(compiled) == 20, len(compiled)
    lines, size = log(1 << 20)
    start, matches = time.perf_counter(), 0
    for line in lines:
        escaped = line.replace("\t", "#011") if "\t" in line else None
        for expression in compiled:
            found = expression.findall(line)
            if not found and escaped is not None:
                found = expression.findall(escaped)
            for group in found:
                try:
                    float(group)
                    matches += 1
                except ValueError:
                    pass
    seconds = time.perf_counter() - start
    print(f"{size / seconds / 2**20:.2f} MiB/s, {matches} matches in {len(lines)} lines")


if __name__ == "__main__":
    main()
