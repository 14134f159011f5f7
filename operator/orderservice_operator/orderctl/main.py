"""The command line of `orderctl`: options, output, exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from orderservice_operator.errors import OperatorError

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130

_DESCRIPTION: Final = "Inspect OrderServices, and do what `kubectl apply` cannot."
_EXAMPLES: Final = """\
examples:
  orderctl plan -f orders.yaml            what would `kubectl apply -f orders.yaml` change?
  orderctl status orders --watch          one screen, renewed every two seconds
  orderctl pause orders --reason "INC-42: broker upgrade"
  orderctl resume orders
  orderctl rollback orders --to-revision 3    (`status` lists the revisions; --undo ends it)
  orderctl crd | kubectl apply --server-side -f -

Installed as kubectl-orderservice it is also a plug-in: kubectl orderservice status orders
"""
_PLAN_EXAMPLES: Final = """\
exit code: 0 nothing would change, 2 something would, 1 an error, or the API server would refuse it

examples:
  orderctl plan -f orders.yaml --output summary
  helm template ./charts/orderservice-environment | orderctl plan -f -
  orderctl plan -f orders.yaml --output json | jq '.[].changes[].name'
"""


class _Parser(argparse.ArgumentParser):
    """A parser that exits with 1 for wrong usage, because 2 means that something would change."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}; see --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; print an error as one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        from orderservice_operator.orderctl import verbs

        exit_code = verbs.VERBS[options.verb](options)
        sys.stdout.flush()
    except OperatorError as error:
        sys.stderr.write(f"orderctl: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return exit_code


def _parser() -> argparse.ArgumentParser:
    script_name = Path(sys.argv[0]).name
    program = "kubectl orderservice" if script_name.startswith("kubectl-") else "orderctl"
    shape = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog=program, description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=shape
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        epilog = _PLAN_EXAMPLES if name == "plan" else None
        return verbs.add_parser(
            name, help=text, description=text, epilog=epilog, formatter_class=shape
        )

    _add_plan(verb("plan", "show what applying a file would change, children included"))
    status = verb("status", "show one OrderService on one screen")
    status.add_argument(
        "-w", "--watch", action="store_true", help="refresh the screen every two seconds"
    )
    pause = verb("pause", "stop the operator from changing an OrderService")
    pause.add_argument("--reason", default="", help="shown in the status until it is resumed")
    resume = verb("resume", "let the operator manage an OrderService again")
    rollback = verb("rollback", "run an earlier good revision instead of the spec")
    selection = rollback.add_mutually_exclusive_group()
    selection.add_argument(
        "--to-revision",
        type=int,
        metavar="N",
        help="default: the last good one that does not run now",
    )
    selection.add_argument("--undo", action="store_true", help="run the spec again")
    for command in (status, pause, resume, rollback):
        command.add_argument("name", metavar="NAME")
        _add_cluster_options(command)
    verb("crd", "print the CustomResourceDefinition")
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--filename", required=True, help="YAML file; - is standard input")
    parser.add_argument(
        "-o", "--output", choices=("diff", "summary", "json"), default="diff", help="default: diff"
    )
    _add_cluster_options(parser)


def _add_cluster_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster")
    group.add_argument("-n", "--namespace", default="", help="default: the context's namespace")
    group.add_argument("--context", default="", help="default: the current one")
    group.add_argument("--kubeconfig", default="", help="default: $KUBECONFIG or ~/.kube/config")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto"
    )
