"""Asks a model server what pictures show: `python -m serving.client picture.jpg`.

    python -m serving.client photos/ --top-k 3          a folder, with the three most probable classes
    cat picture.png | python -m serving.client - --json  standard input, a JSON object a picture
    python -m serving.client --rest picture.jpg         over REST instead of gRPC
    python -m serving.client --status                   which versions are served

From Python:

    with serving.client.connect("127.0.0.1:8500") as client:
        (prediction,) = client.predict([Path("picture.jpg").read_bytes()])
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from serving import image_files
from serving.answers import INPUT, Metadata, Prediction, PredictionClient, ServedModel, ServingError, VersionStatus
from serving.file_names import printable
from serving.image_files import ImageFile
from serving.retries import RetryPolicy

DEFAULT_ADDRESS = "127.0.0.1:8500"
DEFAULT_REST_ADDRESS = "127.0.0.1:8501"

INITIALIZER = "__saved_model_init_op"
"""A signature that TensorFlow adds to each SavedModel and that cannot be called."""

EXIT_IMAGE_FAILED = 1
EXIT_USAGE = 2
EXIT_SERVER_FAILED = 3


def connect(
    address: str | None = None,
    model: ServedModel | None = None,
    *,
    rest: bool = False,
    timeout_s: float = 10.0,
    retry_policy: RetryPolicy | None = None,
) -> PredictionClient:
    """Connects to a model server, at the first call.

    Args:
        address: `host:port`, or a URL for REST; port 8500 of this machine for gRPC and 8501 for REST where None.
        model: which to ask for; the latest version of `alexnet` where None.
        rest: REST instead of gRPC.
        timeout_s: for a call with all its attempts.
        retry_policy: when to try again.
    """
    # Each brings libraries that the other does not need.
    if rest:
        from serving.rest_client import RestClient

        return RestClient(
            address or DEFAULT_REST_ADDRESS, model or ServedModel(), timeout_s=timeout_s, retry_policy=retry_policy
        )
    from serving.grpc_client import GrpcClient

    return GrpcClient(
        address or DEFAULT_ADDRESS, model or ServedModel(), timeout_s=timeout_s, retry_policy=retry_policy
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        The exit status: 0, or EXIT_IMAGE_FAILED, EXIT_USAGE or EXIT_SERVER_FAILED.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not (options.images or options.status or options.metadata):
        parser.error("name a picture, a folder or - for standard input, or give --status or --metadata")
    try:
        model = ServedModel(options.model, options.model_version, options.label)
        names = image_files.find(options.images)
        retry_policy = RetryPolicy(max_attempts=options.retries + 1)
    except ValueError as error:
        parser.error(printable(str(error)))
    rest = options.rest or (options.server or "").startswith(("http://", "https://"))
    address = options.server or (DEFAULT_REST_ADDRESS if rest else DEFAULT_ADDRESS)
    try:
        with connect(address, model, rest=rest, timeout_s=options.timeout_s, retry_policy=retry_policy) as client:
            if options.status:
                print(status_text(client.status(), as_json=options.json))
            if options.metadata:
                print(metadata_text(client.metadata(), as_json=options.json))
            return _classify(client, names, options)
    except ServingError as error:
        print(f"{address}: {explain(error)}", file=sys.stderr)
        return EXIT_SERVER_FAILED


def explain(error: ServingError) -> str:
    """What a server's error means, in a line where that is known, and what to do."""
    message = " ".join(error.message.split())
    if error.code == "UNAVAILABLE":
        return f"no server answers ({message}). Is it running? `make serve` starts one; --server says where it is."
    if error.code == "DEADLINE_EXCEEDED":
        return f"no answer in time ({message}). --timeout-s gives it more; --batch-size makes requests smaller."
    if error.code == "NOT_FOUND":
        return f"{message}. --model, --model-version and --label say which model; --status lists its versions."
    # The server's words on an image sit among TensorFlow's names of functions and nodes.
    if found := re.search(rf"{INPUT}\[\d+\] ([^][]+)", message):
        return found.group(1).strip()
    return f"{error.code}: {message}"


def status_text(versions: Sequence[VersionStatus], *, as_json: bool = False) -> str:
    """A line a version, or a JSON list."""
    if as_json:
        return json.dumps([vars(version) for version in versions])
    return "\n".join(f"version {v.version}  {v.state}{'  ' + v.error if v.error else ''}" for v in versions)


def metadata_text(metadata: Metadata, *, as_json: bool = False) -> str:
    """The version and its signatures, or a JSON object; without TensorFlow's own, which initializes the model."""
    signatures = {name: s for name, s in metadata.signatures.items() if name != INITIALIZER}
    if as_json:
        return json.dumps(
            {"version": metadata.version, "signatures": {name: vars(s) for name, s in signatures.items()}}
        )
    lines = [f"version {metadata.version}"]
    for name, signature in signatures.items():
        lines.append(name)
        lines += [f"  in   {tensor}: {kind}" for tensor, kind in signature.inputs.items()]
        lines += [f"  out  {tensor}: {kind}" for tensor, kind in signature.outputs.items()]
    return "\n".join(lines)


def _classify(client: PredictionClient, names: Sequence[str], options: argparse.Namespace) -> int:
    """Classifies the files and writes an answer for each, batch by batch."""
    failed = 0

    def report_failure(name: str, reason: str) -> None:
        nonlocal failed
        failed += 1
        if options.json:
            print(json.dumps({"file": _json_name(name), "error": reason}), flush=True)
        else:
            print(f"{printable(name)}: {reason}", file=sys.stderr)

    width = max((len(printable(name)) for name in names), default=0)
    readable = _read_all(names, report_failure)
    for batch in image_files.batches(readable, options.batch_size):
        for file, prediction in _predict(client, batch, report_failure):
            top = prediction.top(options.top_k)
            print(_json_line(file.name, prediction, top) if options.json else _table_line(file.name, width, top))
            if options.picture_dir:
                try:
                    _save_picture(file, prediction, options.picture_dir)
                except (OSError, ValueError) as error:
                    report_failure(file.name, str(error))
    return EXIT_IMAGE_FAILED if failed else 0


def _read_all(names: Sequence[str], report_failure: Callable[[str, str], None]) -> Iterator[ImageFile]:
    """The files that can be read."""
    for name in names:
        try:
            yield image_files.read(name)
        except OSError as error:
            report_failure(name, f"it cannot be read: {error.strerror}")


def _predict(
    client: PredictionClient, batch: list[ImageFile], report_failure: Callable[[str, str], None]
) -> list[tuple[ImageFile, Prediction]]:
    """The answers for a batch; where the server refuses it, for each of its images that it does not refuse alone."""
    try:
        return list(zip(batch, client.predict([file.content for file in batch]), strict=True))
    except ServingError as error:
        if len(batch) > 1 and error.code == "INVALID_ARGUMENT":
            return [answer for file in batch for answer in _predict(client, [file], report_failure)]
        # Alone, a picture that is too large for the server is not the server's failure.
        if len(batch) == 1 and error.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
            report_failure(batch[0].name, explain(error))
            return []
        raise


def _save_picture(file: ImageFile, prediction: Prediction, folder: Path) -> None:
    from serving import labelled_pictures  # brings Pillow, which no other output needs

    labelled_pictures.save(file, prediction, folder)


def _json_line(name: str, prediction: Prediction, top: Sequence[tuple[str, float]]) -> str:
    return json.dumps(
        {
            "file": _json_name(name),
            "label": prediction.label,
            "score": prediction.score,
            "top": [{"label": label, "score": score} for label, score in top],
            "probabilities": dict(zip(prediction.classes, prediction.probabilities, strict=True)),
        }
    )


def _json_name(name: str) -> str:
    r"""The name itself, but for bytes that are not UTF-8: `\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _table_line(name: str, width: int, top: Sequence[tuple[str, float]]) -> str:
    return "  ".join([printable(name).ljust(width), *(f"{label:<10} {score:6.1%}" for label, score in top)])


def _positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not above 0 and finite")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Ask a model server what pictures show.",
        epilog=f"Exit status: 0; {EXIT_IMAGE_FAILED} a picture could not be read or was refused; {EXIT_USAGE} wrong "
        f"usage; {EXIT_SERVER_FAILED} the server did not answer, or has no such model; {os.EX_IOERR} the answers "
        "cannot be written.",
    )
    parser.add_argument("images", nargs="*", metavar="PICTURE", help="files, folders, or - for standard input")
    server = parser.add_argument_group("server")
    server.add_argument(
        "--server", metavar="HOST:PORT", help=f"{DEFAULT_ADDRESS}, with --rest {DEFAULT_REST_ADDRESS}; a URL means REST"
    )
    server.add_argument("--rest", action="store_true", help="ask over REST instead of gRPC")
    server.add_argument("--model", default="alexnet", help="name of the model: %(default)s")
    server.add_argument("--model-version", type=int, metavar="N", help="a version instead of the latest")
    server.add_argument("--label", help="a version by the server's label for it, e.g. canary")
    server.add_argument(
        "--timeout-s",
        type=_positive_float,
        default=10.0,
        metavar="S",
        help="seconds for a request, with all attempts: %(default)s",
    )
    server.add_argument(
        "--retries",
        type=int,
        default=4,
        metavar="N",
        help="how often to try again where no server answers: %(default)s",
    )
    server.add_argument(
        "--batch-size", type=_positive_int, default=32, metavar="N", help="pictures a request, at most: %(default)s"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--top-k", type=_positive_int, default=1, metavar="K", help="show the K most probable classes: %(default)s"
    )
    output.add_argument("--json", action="store_true", help="a JSON object a picture, instead of a table")
    output.add_argument(
        "--picture-dir", type=Path, metavar="DIR", help="also write each picture with its class below it"
    )
    output.add_argument("--status", action="store_true", help="list the model's versions and their state")
    output.add_argument("--metadata", action="store_true", help="list the model's signatures")
    return parser


if __name__ == "__main__":
    from surroundings import streams

    streams.prepare(only_prints=True)
    sys.exit(main())
