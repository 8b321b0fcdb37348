"""Figures of a run: medians and ratios, the table, and the file that a later run is compared with."""

import json
import statistics
from pathlib import Path

# A change of a ratio by less than this is noise on a shared machine.
NOTABLE = 0.05


def median(values):
    return statistics.median(values) if values else None


def ratios(measured, yardstick, key):
    """One round's figure by the yardstick's in the same round: drift of the machine falls on both."""
    pairs = zip(measured, yardstick)
    return [mine[key] / theirs[key] for mine, theirs in pairs if mine and theirs and theirs.get(key)]


def summarize(rounds, targets, yardstick):
    """`rounds[target]` is a list with a measurement per round, None where it failed. Returns figures per target."""
    proxies = [name for name in [yardstick, *targets] if name in rounds and name != "direct"]
    # A proxy that cannot serve this load is no yardstick for it.
    first = next((name for name in proxies if any(rounds[name])), None)
    summary = {}
    for name in targets:
        good = [one for one in rounds[name] if one]
        if not good:
            summary[name] = {"failed": len(rounds[name])}
            continue
        figures = {key: median([one[key] for one in good]) for key in ("tps", "p50_us", "p99_us", "cpu_us", "memory_mib")}
        figures["tps_ratio"] = median(ratios(rounds[name], rounds["direct"], "tps"))
        figures["p99_ratio"] = median(ratios(rounds[name], rounds[first], "p99_us")) if name != "direct" else None
        figures["cpu_ratio"] = median(ratios(rounds[name], rounds[first], "cpu_us")) if name != "direct" else None
        figures["failed"] = len(rounds[name]) - len(good)
        summary[name] = figures
    return summary


def shown(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def print_table(run):
    settings = run["settings"]
    print(f"\n{settings['server']}, {settings['rounds']} rounds of {settings['seconds']} s, {run['machine']['cores']} cores "
          f"({run['machine']['model']}); medians; " + ", ".join(f"{name} {version}" for name, version in run["versions"].items()))
    print(f"{'load':17}{'clients':>8}  {'target':14}{'tps/direct':>11}{'tps/first':>10}{'CPU us/txn':>11}{'/yard':>7}"
          f"{'p50 us':>9}{'p99 us':>9}{'/yard':>7}{'MiB':>7}")
    firsts = {}
    for row in run["rows"]:
        for name, figures in row["targets"].items():
            head = f"{row['load']:17}{row['clients']:8}  {name:14}"
            if "tps" not in figures:
                print(f"{head}  {figures.get('why', 'failed')}")
                continue
            note = f"  ({figures['failed']} rounds failed)" if figures["failed"] else ""
            proxy = name != "direct"
            first = firsts.setdefault((row["load"], name), figures["tps"])
            print(f"{head}{shown(figures['tps_ratio'], 2):>11}{shown(figures['tps'] / first, 2):>10}{shown(figures['cpu_us'] if proxy else None, 1):>11}"
                  f"{shown(figures['cpu_ratio'], 2):>7}{shown(figures['p50_us'], 0):>9}{shown(figures['p99_us'], 0):>9}"
                  f"{shown(figures['p99_ratio'], 2):>7}"
                  f"{shown(figures['memory_mib'] if proxy else None, 1):>7}{note}")
    print(f"tps/direct: throughput by that of a direct connection in the same round; tps/first: by its own with the first number of "
          f"clients; /yard: CPU and p99 by those of {settings['yardstick'] or 'the first proxy'}, "
          "else of the first proxy that serves the load")


def save(run, path):
    Path(path).write_text(json.dumps(run, indent=1) + "\n")
    print(f"saved to {path}")


def print_comparison(run, path):
    """Ratios of this run beside those of an earlier one. Absolute figures are not compared: machines differ from day to day."""
    earlier = json.loads(Path(path).read_text())
    for key in ("machine", "settings", "versions"):
        if earlier[key] != run[key]:
            print(f"note: {key} differ: then {earlier[key]}, now {run[key]}")
    then = {(row["load"], row["clients"]): row["targets"] for row in earlier["rows"]}
    print(f"\nbeside {path}, then -> now; * is a change of more than {NOTABLE:.0%}")
    print(f"{'load':17}{'clients':>8}  {'target':12}{'tps/direct':>20}{'CPU/yardstick':>20}")
    for row in run["rows"]:
        for name, now in row["targets"].items():
            before = then.get((row["load"], row["clients"]), {}).get(name, {})
            if name != "direct" and "tps" in now and "tps" in before:
                cells = "".join(f"{change(before[key], now[key]):>20}" for key in ("tps_ratio", "cpu_ratio"))
                print(f"{row['load']:17}{row['clients']:8}  {name:12}{cells}")


def change(before, now):
    if before is None or now is None:
        return "-"
    mark = " *" if abs(now / before - 1) > NOTABLE else "  "
    return f"{before:.2f} -> {now:.2f}{mark}"
