#!/usr/bin/env python3
"""The driver of ./dev soak: a steady load without faults, and what grows meanwhile: memory, connections, tables, indexes, latency. Writes
soak.svg and soak.md into --out. scripts/chaos.sh has started broker and database."""

import argparse
import asyncio
import base64
import os
import subprocess
import time

from load import Load
from place import HistoryFile, Place, ROLES
from run import ready
from web import NoAnswer

POINTS = 60
TABLES = """SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("root", "dir", "bin"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", required=True, help="the folder of the picture and the table")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="refunds a second")
    options = parser.parse_args()
    options.seed = 1
    return options


async def run(options):
    history = HistoryFile("/dev/null")
    place = Place(options, history)
    samples = []
    try:
        await place.start()
        load = Load(place, history, options.seed, options.rate)
        await ready(place, load.web)
        began = time.monotonic()
        loading = asyncio.create_task(load.run(began + options.minutes * 60))
        while not loading.done():
            until = began + (len(samples) + 1) * options.minutes * 60 / POINTS
            await asyncio.wait([loading], timeout=max(0, until - time.monotonic()))
            samples.append(await sample(place, load, time.monotonic() - began))
        await loading
        await load.finish()
    finally:
        await place.stop()
    return samples


async def sample(place, load, seconds):
    """One row: {name: value}; names begin with their panel."""
    row = {"seconds": round(seconds)}
    for name in ROLES:
        row[f"memory {name}"] = resident(place.programs[name].process.pid)
    (row["connections database"],) = (int(line[0]) for line in sql(CONNECTIONS))
    tables = [(name, int(size), int(indexes)) for name, size, indexes in sql(TABLES)]
    for name, size, indexes in sorted(tables, key=lambda table: -table[1] - table[2])[:5]:
        row[f"size {name}"] = (size + indexes) / 1e6
    row["size all tables"] = sum(size for _, size, _ in tables) / 1e6
    row["size all indexes"] = sum(indexes for _, _, indexes in tables) / 1e6
    management = place.broker_env(place.brokers[0])["MANAGEMENT"]
    headers = {"authorization": "Basic " + base64.b64encode(b"dev:dev").decode()}
    try:
        overview = await load.web.json("GET", management, "/api/overview", headers=headers, timeout=10)
        row["connections broker"] = overview["object_totals"]["connections"]
        row["connections channels"] = overview["object_totals"]["channels"]
        row["messages waiting"] = overview["queue_totals"].get("messages", 0)
        row["reversals"] = (await load.web.json("GET", place.addresses["sim"], "/_sim/counts"))["reversals"]
    except NoAnswer:
        pass
    taken, load.latencies = sorted(latency for _, latency in load.latencies), []
    if taken:
        row["webhook p50"], row["webhook p99"] = (taken[min(len(taken) - 1, len(taken) * at // 100)] * 1000 for at in (50, 99))
    return row


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1000


def sql(query):
    done = subprocess.run(["psql", "-AtX", "-F", "\t", "-c", query, os.environ["DATABASE_URL"]], capture_output=True, check=True, text=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def picture(samples, title):
    panels = (("memory", "memory, MB"), ("connections", "connections"), ("size", "tables and indexes, MB"), ("webhook ", "webhooks, ms"))
    width, height, left, gap = 760, 150, 60, 50
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 240}" height="{len(panels) * (height + gap) + 40}" '
             'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left}" y="20" font-size="15">{title}</text>']
    end = samples[-1]["seconds"] or 1
    for at, (prefix, label) in enumerate(panels):
        top = 50 + at * (height + gap)
        names = sorted({name for row in samples for name in row if name.startswith(prefix)})
        most = max([row[name] for row in samples for name in names if name in row] + [1])
        parts.append(f'<text x="{left}" y="{top - 8}">{label}</text>'
                     f'<path d="M{left} {top}V{top + height}H{width}" fill="none" stroke="#888"/>')
        for share in (0, 0.5, 1):
            y = top + height * (1 - share)
            parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{most * share:.0f}</text>'
                         f'<path d="M{left} {y:.0f}H{width}" stroke="#ddd"/>')
        for share in (0, 0.5, 1):
            x = left + (width - left) * share
            parts.append(f'<text x="{x:.0f}" y="{top + height + 15}" text-anchor="middle">{end * share / 60:.0f} min</text>')
        for number, name in enumerate(names):
            color = COLORS[number % len(COLORS)]
            points = " ".join(f"{left + (width - left) * row['seconds'] / end:.1f},{top + height * (1 - row[name] / most):.1f}"
                              for row in samples if name in row)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
                         f'<text x="{width + 12}" y="{top + 12 + number * 17}" fill="{color}">{name.removeprefix(prefix).strip()}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def table(samples, options):
    first = samples[min(len(samples) - 1, len(samples) // 10)]
    middle, last = samples[len(samples) // 2], samples[-1]
    names = [name for name in last if name != "seconds"]
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cores = sum(line.startswith("processor") for line in file)
    build = "release" if "release" in options.bin else "debug"
    lines = [f"`./dev soak --minutes {options.minutes:g} --rate {options.rate:g}`: {options.rate:g} refunds a second without faults, "
             f"a {build} build and all services on {cores} cores.", "",
             "![memory, connections, sizes and latency over time](soak.svg)", "",
             "| | " + " | ".join(f"after {row['seconds'] / 60:.0f} min" for row in (first, middle, last)) + " |", "|---|---|---|---|"]
    units = (("memory", " MB"), ("size", " MB"), ("webhook p", " ms"))
    for name in names:
        unit = next((unit for prefix, unit in units if name.startswith(prefix)), "")
        lines.append(f"| {name} | " + " | ".join(f"{row[name]:.0f}{unit}" if name in row else "" for row in (first, middle, last)) + " |")
    return "\n".join(lines) + "\n"


def main():
    options = arguments()
    samples = asyncio.run(run(options))
    title = f"{options.rate:g} refunds a second for {options.minutes:g} minutes"
    with open(f"{options.out}/soak.svg", "w", encoding="utf-8") as file:
        file.write(picture(samples, title))
    with open(f"{options.out}/soak.md", "w", encoding="utf-8") as file:
        file.write("# Soak\n\n" + table(samples, options))
    print(table(samples, options), end="")


if __name__ == "__main__":
    main()
