"""The tables of the benchmark of checkpoints."""

from typing import Any

BAR = 0.7  # of what the disk writes
# What is held against the disk: the name in the table, and in a sample.
SHARES = {
    "save, held up": "held_up_s",
    "load, from the disk": "cold_load_s",
    "load, from memory": "warm_load_s",
}


def shares(stalls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Saves and loads in GB/s beside the disk's own writing of as many bytes."""
    return [
        {
            "name": f"{what}, {row['name']}",
            "ours": row["bytes"] / 1e9 / row[key],
            "peer": row["bytes"] / 1e9 / row["disk_write_s"],
            "ratio": row["disk_write_s"] / row[key],
            "bar": BAR,
            "met": row["disk_write_s"] / row[key] >= BAR,
        }
        for row in stalls
        for what, key in SHARES.items()
    ]


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    model = report["options"]["model"]
    head = (
        f"{report['date']}, {report['hardware']}, torch {report['versions']['torch']}, "
        f"{report['processes']} processes: {model['num_layers']} layers, hidden "
        f"{model['hidden_size']}, vocabulary {model['vocab_size']}, "
        f"{'bf16' if report['options']['bf16'] else 'fp32'}; "
        f"{report['stalls'][0]['bytes'] / 1e9:.2f} GB a checkpoint"
    )
    lines = [head, "", "| | held up (s) | stall (s) | ratio | of it save() | longest poll() | "
             "committed after (s) | steps meanwhile | step (s) | meanwhile | memory added (GB), "
             "held up | in the background |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in report["stalls"]:
        lines.append(
            f"| {row['name']} | {row['held_up_s']:.2f} | {row['stall_s']:.3f} | "
            f"{row['ratio']:.1%} | {row['save_s']:.3f} | {row['longest_poll_s']:.3f} | "
            f"{row['until_committed_s']:.2f} | {row['steps_meanwhile']:.0f} | "
            f"{row['step_s']:.3f} | {row['step_meanwhile_s']:.3f} | "
            f"{row['held_up_bytes'] / 1e9:.2f} | {row['background_bytes'] / 1e9:.2f} |"
        )
    lines += ["", *_disk_table(report)]
    return "\n".join(lines)


def _disk_table(report: dict[str, Any]) -> list[str]:
    lines = ["| | GB/s | the disk writes | share | bar | |", "|---|---|---|---|---|---|"]
    for row in report["rows"]:
        lines.append(
            f"| {row['name']} | {row['ours']:.2f} | {row['peer']:.2f} | {row['ratio']:.0%} | "
            f"{row['bar']:.0%} | {'met' if row['met'] else 'NOT met'} |"
        )
    for stall in report["stalls"]:
        others = {"written past the page cache": "disk_direct_write_s", "read": "disk_cold_read_s"}
        others |= {"read from memory": "disk_warm_read_s"}
        speeds = (
            f"{what} {stall['bytes'] / 1e9 / stall[key]:.2f}"
            for what, key in others.items()
            if key in stall
        )
        lines.append(f"\nThe disk besides, GB/s, beside {stall['name']}: {', '.join(speeds)}.")
    return lines
