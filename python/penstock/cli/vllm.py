"""`penstock vllm`: what Penstock does in an installed vLLM."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from penstock.cli import exits, output
from penstock.cli.command import Commands, add_command, add_group

_EXAMPLE = "PENSTOCK_VLLM=1 penstock vllm check"


def add_to(commands: Commands) -> None:
    group = add_group(
        commands,
        "vllm",
        summary="say what Penstock does in vLLM",
        description="Penstock as vLLM's message queue and object store.",
        example=_EXAMPLE,
    )
    add_command(
        group,
        "check",
        run,
        summary="say what would happen, and why",
        description=(
            "Whether the vLLM of this Python, started with this environment, would use Penstock's\n"
            "message queue and object store in the place of its own. Imports nothing of vLLM's.\n"
            "Exit code 1 if it would not."
        ),
        example=_EXAMPLE,
    )


def run(args: argparse.Namespace) -> int:
    from penstock.integrations.vllm.outlook import outlook

    found = outlook()
    if args.json:
        output.print_json(asdict(found))
    else:
        what = "no vLLM" if found.version is None else f"vLLM {found.version}"
        whose = "Penstock's" if found.replaces else "its own"
        print(output.printable(f"{what}: the message queue and the object store are {whose}"))
        for reason in found.reasons:
            print(output.printable(f"  {reason}"))
    return exits.OK if found.replaces else exits.ERROR
