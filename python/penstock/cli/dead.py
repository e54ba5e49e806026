"""`penstock dead NAME`: lists, requeues or drops the dead letters of a queue. Attaches as a
consumer that takes nothing, so it also works when no other process is left."""

from __future__ import annotations

import argparse
from typing import Any

import penstock
from penstock import _core
from penstock.cli import exits, output, units
from penstock.cli.command import Commands, add_command, add_owner, natural_int, positive_int
from penstock.cli.render import render
from penstock.dead_letters import DeadLetter, decode_content, letters_of

_MOST_DECODED = 16 << 20  # bytes of a message; of a larger one only the size is shown


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "dead",
        run,
        summary="show, requeue or drop the dead letters of a queue",
        description=(
            "A message that was delivered `max_deliveries` times in vain, or that contradicts\n"
            "itself, becomes a dead letter and keeps its slot. Shows the dead letters, oldest\n"
            "first, without taking them; or delivers them again, in their old place in the\n"
            "order; or drops them. SEQ is the number at the start of a line; without one, all.\n"
            "Exit code 1 if a SEQ is no dead letter. Pickles are not read: that could run code."
        ),
        example=(
            "penstock dead rollouts\npenstock dead rollouts --requeue\n"
            "penstock dead rollouts --drop 17 40"
        ),
    )
    parser.add_argument("name", metavar="NAME", help="of a queue, as `penstock ls` shows it")
    parser.add_argument(
        "--limit",
        type=positive_int,
        default=100,
        metavar="N",
        help="show at most so many (default 100)",
    )
    add_owner(parser)
    verbs = parser.add_mutually_exclusive_group()
    verbs.add_argument(
        "--requeue", nargs="*", type=natural_int, metavar="SEQ", help="have them delivered anew"
    )
    verbs.add_argument("--drop", nargs="*", type=natural_int, metavar="SEQ", help="throw them away")


def run(args: argparse.Namespace) -> int:
    application = _core.inspect_queue(args.name)["application"]
    queue = _core.Queue(
        args.name,
        instance="",
        role="consumer",
        codec=None,
        timeout=0,
        application=application,
        owner=args.owner,
    )
    try:
        if args.requeue is None and args.drop is None:
            return _show(args, queue)
        return _move(args, queue)
    finally:
        queue.close()


def _show(args: argparse.Namespace, queue: _core.Queue) -> int:
    there = queue.stats().dead_letters
    letters = letters_of(queue, args.limit, decode_content)
    rows = [(letter, _content(letter)) for letter in letters]
    if args.json:
        output.print_json(
            {
                "name": args.name,
                "dead_letters": [_to_json(letter, content) for letter, content in rows],
            }
        )
        return exits.OK
    if not letters:
        print(f"{output.printable(args.name)} has no dead letters")
        return exits.OK
    header = ("sequence", "deliveries", "size", "age", "producer", "content")
    table = [_row(letter, content) for letter, content in rows]
    print("\n".join(output.columns([header, *table], right=range(5))))
    if there > len(letters):
        print(f"and {units.count(there - len(letters))} more; --limit shows them")
    return exits.OK


def _move(args: argparse.Namespace, queue: _core.Queue) -> int:
    verb = "requeued" if args.drop is None else "dropped"
    asked = sorted(set(args.requeue if args.drop is None else args.drop))
    move = queue._requeue_dead_letters if args.drop is None else queue._drop_dead_letters
    missing = []
    if asked:
        moved = 0
        for sequence in asked:
            if move([sequence]):
                moved += 1
            else:
                missing.append(sequence)
    else:
        moved = move(None)
    if args.json:
        output.print_json({"name": args.name, verb: moved, "missing": missing})
    else:
        print(f"{verb} {units.plural(moved, 'dead letter')} of {output.printable(args.name)}")
    if missing:
        numbers = ", ".join(map(str, missing))
        output.say(f"no dead letter of {args.name}: {numbers}; `penstock dead {args.name}` lists")
    return exits.ERROR if missing else exits.OK


def _content(letter: DeadLetter) -> str:
    """One line, bounded and printable, whatever the message contains."""
    if letter.nbytes > _MOST_DECODED:
        return f"({units.size(letter.nbytes)}, not decoded)"
    try:
        return render(letter.content())
    except penstock.NotFound:
        return "(requeued or dropped just now)"
    except penstock.Incompatible:
        return "(not read: a pickle, or of a newer sender)"
    except penstock.Error as error:
        return render(error)


def _row(letter: DeadLetter, content: str) -> tuple[str, ...]:
    return (
        str(letter.sequence),
        units.count(letter.deliveries),
        units.size(letter.nbytes),
        units.duration(letter.age),
        units.count(letter.producer),
        content,
    )


def _to_json(letter: DeadLetter, content: str) -> dict[str, Any]:
    return {
        "sequence": letter.sequence,
        "deliveries": letter.deliveries,
        "nbytes": letter.nbytes,
        "age": letter.age,
        "producer": letter.producer,
        "format": letter.format,
        "content": content,
    }
