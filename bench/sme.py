"""Why signed int8 weights went wrong on an emulated Armv9 with SME: operator by operator, and the instruction itself.

    pip install ziglang      # cross-compiles bench/sme.c
    python -m bench.sme [--qemu OTHER_QEMU_AARCH64] [--onnxruntime FOLDER_WITH_ANOTHER_AARCH64_WHEEL]

Every operator is compared with its own definition in numpy, with SME and without, and it is counted how many outer
products of bytes (SMOPA) and of floats (FMOPA) are in the code that ran. docs/sme.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeleaf import emulation
from edgeleaf.emulation import Emulation
from edgeleaf.graph import builder

ROWS, INPUTS, OUTPUTS = 16, 384, 384
PLACE = 0xFFE0001C
"""The bits of an outer product's word that do not name registers."""
SMOPA, FMOPA = 0xA0800000, 0x80800000
GUEST = """
import json, sys
sys.path[:0] = sys.argv[3:]
import numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1; options.log_severity_level = 3
held = np.load(f"{sys.argv[1]}/{sys.argv[2]}.npz")
session = ort.InferenceSession(f"{sys.argv[1]}/{sys.argv[2]}.onnx", options, providers=["CPUExecutionProvider"])
y = session.run(None, {"x": held["x"]})[0].astype(float)
cosine = (y * held["y"]).sum() / np.sqrt((y**2).sum() * (held["y"] ** 2).sum())
print(json.dumps([ort.__version__, float(cosine), float(np.abs(y - held["y"]).max() / np.abs(held["y"]).max())]))
"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sme")
    parser.add_argument("--qemu", type=Path, action="append", default=[], help="another qemu-aarch64; repeatable")
    parser.add_argument("--onnxruntime", type=Path, action="append", default=[], help="another wheel's folder")
    options = parser.parse_args()
    processors = ("armv9", "armv8.6-i8mm")
    prepared = emulation.prepare(processors)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        operators = write_operators(folder)
        program = build(folder)
        for qemu in (prepared.qemu["aarch64"], *map(str, options.qemu)):
            version = subprocess.run([qemu, "-version"], check=True, capture_output=True, text=True).stdout
            ran = subprocess.run([qemu, "-cpu", "max", str(program)], check=True, capture_output=True, text=True)
            sys.stdout.write(f"{version.splitlines()[0]}\n{ran.stdout}")
            there = replace(prepared, qemu={"aarch64": qemu})
            for packages in ([], *([str(path.absolute())] for path in options.onnxruntime)):
                for processor in processors:
                    for operator in operators:
                        sys.stdout.write(f"  {processor:13}{measure(there, processor, folder, operator, packages)}\n")
                        sys.stdout.flush()


def measure(there: Emulation, processor: str, folder: Path, operator: str, packages: list[str]) -> str:
    """Run one operator on a processor; return a line that says how right it is and what it ran."""
    log = folder / "code.log"
    command = there.command(processor, ["-P", "-c", GUEST, str(folder), operator, *packages])
    place = command.index("-cpu")
    command[place:place] = ["-d", "in_asm", "-D", str(log)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{processor}: {done.stderr.strip()[-300:]}")
    version, cosine, error = json.loads(done.stdout)
    with log.open() as lines:
        words = [int(found[1], 16) & PLACE for line in lines if (found := re.match(r"0x\w+:\s+([0-9a-f]{8})\s", line))]
    log.unlink()
    found = f"SMOPA {words.count(SMOPA):2}, FMOPA {words.count(FMOPA):2}"
    return f"onnxruntime {version:8}{operator:38} cosine {cosine:.6f}, largest error {error:.0e}; {found}"


def build(folder: Path) -> Path:
    """Cross-compile bench/sme.c."""
    program = folder / "sme"
    target = ["-target", "aarch64-linux-musl", "-mcpu=generic+sve+sme", "-O1", "-static"]
    source = str(Path(__file__).with_name("sme.c"))
    zig = [sys.executable, "-m", "ziglang", "cc", *target, source, "-o", str(program)]
    built = subprocess.run(zig, check=False, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"bench/sme.c is not built: pip install ziglang ({built.stderr.strip()[-200:]})")
    return program


def write_operators(folder: Path) -> list[str]:
    """Write models of one operator each, with inputs and right outputs; return their names."""
    dice, names = np.random.default_rng(0), []
    scale = dice.uniform(0.001, 0.01, OUTPUTS).astype(np.float32)
    reals = dice.standard_normal((ROWS, INPUTS)).astype(np.float32)
    for kind, zero in ((np.int8, 0), (np.uint8, 128)):
        low, high = np.iinfo(kind).min + 1, np.iinfo(kind).max
        weight = dice.integers(low, high, (INPUTS, OUTPUTS)).astype(kind)
        zeros = np.full(OUTPUTS, zero, kind)
        centred = weight.astype(np.int64) - zero
        x = dice.integers(0, 256, (ROWS, INPUTS)).astype(np.uint8)
        sums = (x.astype(np.int64) - 128) @ centred
        operands = [weight, np.uint8(128), zeros]
        names.append(_write(folder, "MatMulInteger", x, sums, operands, TensorProto.INT32))
        operands = [weight, np.float32(1), scale, np.uint8(128), zeros]
        names.append(_write(folder, "MatMulIntegerToFloat", x, sums * scale, operands, TensorProto.FLOAT))
        operands = [weight, scale, zeros]
        right = reals.astype(np.float64) @ centred * scale
        names.append(_write(folder, "DynamicQuantizeMatMul", reals, right, operands, TensorProto.FLOAT))
    floats = dice.standard_normal((INPUTS, OUTPUTS)).astype(np.float32)
    names.append(_write(folder, "MatMul", reals, reals.astype(np.float64) @ floats, [floats], TensorProto.FLOAT))
    return names


def _write(
    folder: Path, op: str, x: np.ndarray, y: np.ndarray, operands: list[np.ndarray | np.generic], kind: int
) -> str:
    name = f"{op}, {operands[0].dtype} weights"
    g = builder.GraphBuilder("g")
    given = g.input("x", helper.np_dtype_to_tensor_dtype(x.dtype), [None, None])
    domain = "" if op in ("MatMul", "MatMulInteger") else "com.microsoft"
    g.output(g.node(op, given, *operands, domain=domain)[0], "y", kind, [None, None])
    onnx.save(g.model(), folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", x=x, y=y)
    return name


if __name__ == "__main__":
    main()
