#!/usr/bin/python3
"""Pulling: our command and Podman's side by side, from the same registry into an empty store.

Run it in a machine, as alice, whose registry and stores are in memory, or on disk with --disk:

    tools/machine run --registry [--disk] -- python3 /checkout/bench/pull.py [--runs N] [--only NAME,…]

The images are made on the spot of the machine's own files. Each round pulls with both, in turn. Figures are medians;
what counts are the ratios, taken within each round, which the budgets name. CPU is that of all processes; memory is
the most that all of them had together (Pss: what they share counts once), looked at every 10 ms in a round of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REGISTRY = "localhost:5000"
SIZE = 400 * 1024 * 1024
SMALL_FILES = 30_000
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
BUDGETS = {"six": 0.35, "one": 0.4, "small": 0.4, "zstd": 0.5, "busybox": 1.0, "nothing": 1.0}
TITLES = {
    "six": "400 MB in 6 layers, gzip",
    "one": "400 MB in one layer, gzip",
    "small": "30,000 small files, gzip",
    "zstd": "400 MB in one layer, zstd",
    "busybox": "busybox",
    "nothing": "nothing to do",
}


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")


# Images


def find_files() -> Iterator[tuple[str, int]]:
    """Regular files of the machine and their sizes, always in the same order, until they make SIZE bytes."""
    total = 0
    for top in ("/usr/bin", "/usr/lib", "/usr/share", "/usr/sbin", "/usr/libexec"):
        for directory, subdirectories, names in os.walk(top):
            subdirectories.sort()
            for name in sorted(names):
                path = f"{directory}/{name}"
                if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                    continue
                size = os.path.getsize(path)
                if total + size > SIZE:
                    continue
                total += size
                yield path, size


def build_layers(count: int) -> list[bytes]:
    """The machine's files in ``count`` layers of about the same size."""
    buffers = [io.BytesIO() for _ in range(count)]
    archives = [tarfile.open(fileobj=buffer, mode="w") for buffer in buffers]  # noqa: SIM115
    total = 0
    for path, size in find_files():
        archives[min(total * count // SIZE, count - 1)].add(path, path[1:], recursive=False)
        total += size
    for archive in archives:
        archive.close()
    return [buffer.getvalue() for buffer in buffers]


def build_small_files() -> bytes:
    """SMALL_FILES files of 200 to 8000 bytes in 300 directories."""
    text = Path("/usr/bin/python3").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(SMALL_FILES):
            info = tarfile.TarInfo(f"srv/{number % 300:03}/package/module{number}.py")
            info.size = 200 + number * 2654435761 % 7800
            info.mtime = 1_700_000_000 + number
            start = number * 199 % (len(text) - 8000)
            archive.addfile(info, io.BytesIO(text[start : start + info.size]))
    return buffer.getvalue()


def compress_gzip(data: bytes) -> bytes:
    """As most builders do it: level 6."""
    state = zlib.compressobj(6, wbits=31)
    return state.compress(data) + state.flush()


def compress_zstd(data: bytes) -> bytes:
    """At zstd's own level."""
    import zstandard

    return bytes(zstandard.ZstdCompressor(level=3).compress(data))


def upload(method: str, path: str, data: bytes, kind: str) -> None:
    """Put something into the registry."""
    connection = http.client.HTTPConnection(REGISTRY)
    connection.request(method, path, data, {"Content-Type": kind})
    response = connection.getresponse()
    body = response.read()
    if response.status not in (201, 202):
        sys.exit(f"{method} {path}: {response.status} {body[:200]!r}")
    connection.close()


def upload_blob(name: str, data: bytes, kind: str) -> dict[str, object]:
    """Put a blob into the registry; return its descriptor."""
    connection = http.client.HTTPConnection(REGISTRY)
    connection.request("POST", f"/v2/bench/{name}/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    location = response.headers["Location"]
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = location[location.index("/v2/") :]
    upload("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", data, "application/octet-stream")
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def push_image(name: str, layers: list[bytes], compress: Callable[[bytes], bytes], suffix: str) -> int:
    """Put an image into the registry; return the compressed size of its layers."""
    with ThreadPoolExecutor(2) as pool:
        blobs = list(pool.map(compress, layers))
    descriptors = [upload_blob(name, blob, LAYER + suffix) for blob in blobs]
    configuration = {
        "os": "linux",
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "config": {"Cmd": ["sh"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    config = upload_blob(name, json.dumps(configuration).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors}
    upload("PUT", f"/v2/bench/{name}/manifests/latest", json.dumps(manifest).encode(), MANIFEST)
    return sum(map(len, blobs))


def is_pushed(name: str) -> bool:
    """Tell whether an earlier run in this machine has made the image."""
    connection = http.client.HTTPConnection(REGISTRY)
    connection.request("HEAD", f"/v2/bench/{name}/manifests/latest", headers={"Accept": MANIFEST})
    status = connection.getresponse().status
    connection.close()
    return status == 200


def push_images(names: set[str]) -> None:
    """Make and push what is to be pulled, and not there yet."""
    wanted = {name for name in names - {"busybox", "nothing"} if not is_pushed(name)}
    if "six" in wanted:
        push_image("six", build_layers(6), compress_gzip, "+gzip")
    if wanted & {"one", "zstd"}:
        layers = build_layers(1)
        if "one" in wanted:
            push_image("one", layers, compress_gzip, "+gzip")
        if "zstd" in wanted:
            push_image("zstd", layers, compress_zstd, "+zstd")
    if "small" in wanted:
        push_image("small", [build_small_files()], compress_gzip, "+gzip")


# Contenders


class Ours:
    """Our command with a store of its own."""

    name = "usercontainer"

    def __init__(self, directory: str) -> None:
        self.data = f"{directory}/data"
        self.environment = {**os.environ, "XDG_DATA_HOME": self.data}

    def command(self, image: str) -> tuple[str, ...]:
        """What is measured."""
        return ("usercontainer", "pull", "-q", image)

    def empty(self) -> None:
        """Take everything out of the store."""
        if os.path.exists(self.data):
            run("podman", "unshare", "rm", "-rf", self.data)


class Podman:
    """Podman with the user's own store."""

    name = "podman"
    environment = dict(os.environ)

    def command(self, image: str) -> tuple[str, ...]:
        """What is measured."""
        return ("podman", "pull", "-q", image)

    def empty(self) -> None:
        """Take everything out of the store."""
        run("podman", "rmi", "--all", "--force")


def measure(contender: Ours | Podman, image: str) -> tuple[float, float]:
    """Pull once; return wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    run(*contender.command(image), environment=contender.environment)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_memory(pid: str) -> int:
    """Bytes of one process, what it shares with others divided among them (proc(5), Pss)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def sum_memory(group: int) -> int:
    """Bytes of all processes of a process group."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    if int(file.read().rpartition(")")[2].split()[2]) == group:
                        total += read_memory(name)
            except OSError:
                continue
    return total


def measure_memory(contender: Ours | Podman, image: str) -> int:
    """Pull once; return the largest sum of bytes seen."""
    process = subprocess.Popen(
        contender.command(image),
        env=contender.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    peak = 0

    def look() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, sum_memory(process.pid))
            time.sleep(0.01)

    watcher = threading.Thread(target=look)
    watcher.start()
    watcher.join()
    if process.wait() != 0:
        sys.exit(f"pull of {image} failed")
    return peak


def compare(what: str, runs: int, contenders: list[Ours | Podman]) -> str:
    """Measure one image with both; return a row of the table."""
    image = f"{REGISTRY}/busybox" if what in ("busybox", "nothing") else f"{REGISTRY}/bench/{what}"
    walls: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    cpus: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(runs + 1):
        for contender in contenders:
            if what != "nothing":
                contender.empty()
            elif number == 0:
                run(*contender.command(image), environment=contender.environment)
            wall, cpu = measure(contender, image)
            if number:  # the first round fills caches
                walls[contender.name].append(wall)
                cpus[contender.name].append(cpu)
    peaks = []
    for contender in contenders:
        if what != "nothing":
            contender.empty()
        peaks.append(measure_memory(contender, image))
    one, other = (contender.name for contender in contenders)
    return (
        f"| {TITLES[what]} | {statistics.median(walls[one]):.2f} | {statistics.median(walls[other]):.2f} "
        f"| {compare_pairs(walls[one], walls[other]):.2f} | {BUDGETS[what]} "
        f"| {statistics.median(cpus[one]):.2f} | {compare_pairs(cpus[one], cpus[other]):.2f} "
        f"| {peaks[0] / 1e6:.0f} | {peaks[1] / 1e6:.0f} |"
    )


def compare_pairs(ours: list[float], theirs: list[float]) -> float:
    """Median of the ratios of each round, so that a machine whose speed drifts treats both alike."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def describe_file_system(path: str) -> str:
    """The type of the file system that holds ``path``."""
    done = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="some of " + ",".join(BUDGETS))
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else set(BUDGETS)
    push_images(wanted)
    directory = tempfile.mkdtemp(prefix="bench-pull-", dir=os.path.expanduser("~"))
    contenders: list[Ours | Podman] = [Ours(directory), Podman()]
    print(
        f"Stores on {describe_file_system(directory)}, {options.runs} rounds, {os.cpu_count()} processors\n"
    )
    print("| image | ours, s | Podman, s | ratio | at most | CPU, s | ratio | memory, MB | Podman's |")
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        for what in BUDGETS:
            if what in wanted:
                print(compare(what, options.runs, contenders), flush=True)
    finally:
        for contender in contenders:
            contender.empty()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
