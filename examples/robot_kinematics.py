"""Forward kinematics of a UR5e robot arm over an hour of motion.

A controller logs the six joint angles of the arm at 500 Hz. From the angles and
the robot's URDF file follows where every link was at every sample: each joint
contributes one homogeneous 4x4 transform, and the pose of a link is the pose of
its parent times that transform,

    pose(link) = pose(parent) @ (origin(joint) @ motion(angle)).

Robot engineers need this to place a cell's fences (the box that each link stays
in) and to compare the tool's path with the path that was planned.

The URDF comes from the PyPI package airo-models. The joint motion is made here:
smooth, and within the limits of position and speed that the URDF states.

    python robot_kinematics.py [--size 1.0] [--repeat 3] [--save result.npz]
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import airo_models
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLE_RATE = 500.0  # Hz: the rate at which a UR controller streams its state
HOUR = 3600.0
SEGMENT = 5000  # samples handled at once: ten seconds of motion
KEEP_EVERY = 50  # full poses are kept at 10 Hz

# Error of one 4x4 product, max|C - C_exact| <= PRODUCT_ERROR * eps * max|A| * max|B|, where two
# evaluations are compared: textbook sums have the constant 4 * 4, and fast (Strassen-like)
# algorithms, which only know normwise bounds, stay below 300 for one 4x4 block.
PRODUCT_ERROR = 300.0 + 16.0


class Joint(NamedTuple):
    """One joint of a URDF file."""

    name: str
    parent: str
    child: str
    origin: Array  # (4, 4): the joint's frame in the parent link
    axis: Array | None  # of rotation; None for a fixed joint
    lower: float
    upper: float
    speed: float


def rotation_rpy(roll: float, pitch: float, yaw: float) -> Array:
    """Rotation matrix of URDF's fixed-axis angles: about x, then y, then z."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def numbers(element: ElementTree.Element | None, attribute: str, default: str) -> list[float]:
    text = default if element is None else element.get(attribute, default)
    return [float(word) for word in text.split()]


def linked(element: ElementTree.Element, tag: str) -> str:
    found = element.find(tag)
    if found is None:
        raise ValueError(f"joint {element.get('name')} has no <{tag}>")
    return found.get("link", "")


def read_joint(element: ElementTree.Element) -> Joint:
    kind = element.get("type")
    if kind not in ("fixed", "revolute", "continuous"):
        raise ValueError(f"joint type {kind!r} is not supported")
    origin = np.eye(4)
    origin[:3, :3] = rotation_rpy(*numbers(element.find("origin"), "rpy", "0 0 0"))
    origin[:3, 3] = numbers(element.find("origin"), "xyz", "0 0 0")
    axis = None
    if kind != "fixed":
        axis = np.array(numbers(element.find("axis"), "xyz", "1 0 0"))
        axis /= np.sqrt(np.sum(axis**2))
    limit = element.find("limit")
    return Joint(
        element.get("name", ""),
        linked(element, "parent"),
        linked(element, "child"),
        origin,
        axis,
        numbers(limit, "lower", "0")[0],
        numbers(limit, "upper", "0")[0],
        numbers(limit, "velocity", "0")[0],
    )


def read_urdf(path: str | Path) -> list[Joint]:
    """The joints of a robot, parents before children."""
    # The UR5e file uses a prefix that it does not declare: give it a meaning first.
    text = Path(path).read_text(encoding="utf-8").replace("drake:", "drake_")
    waiting = [read_joint(element) for element in ElementTree.fromstring(text).findall("joint")]
    placed = {joint.parent for joint in waiting} - {joint.child for joint in waiting}
    joints: list[Joint] = []
    while waiting:
        ready = [joint for joint in waiting if joint.parent in placed]
        if not ready:
            raise ValueError("the joints form a loop")
        joints += ready
        placed |= {joint.child for joint in ready}
        waiting = [joint for joint in waiting if joint.child not in placed]
    return joints


def smooth_motion(joints: list[Joint], samples: int) -> Array:
    """Joint angles, one row a moving joint: sums of three slow sines within the limits of angle and speed."""
    t = np.arange(samples) / SAMPLE_RATE
    angles = []
    for i, joint in enumerate(joint for joint in joints if joint.axis is not None):
        middle, amplitude = (joint.lower + joint.upper) / 2, 0.95 * (joint.upper - joint.lower) / 2
        # Amplitudes 0.5, 0.3, 0.2 at frequencies 1, 1.618, 2.414: peak speed below 1.47 amplitude * frequency.
        frequency = 0.8 * joint.speed / (1.47 * amplitude) * (1.0 - 0.07 * i)
        angle = np.full(samples, middle)
        for share, factor in ((0.5, 1.0), (0.3, 1.618), (0.2, 2.414)):
            angle += amplitude * share * np.sin(frequency * factor * t + i * factor)
        angles.append(angle)
    return np.array(angles)


def rotations_about(axis: Array, angles: Array) -> Array:
    """Stack (N, 4, 4) of rotations about an axis through the origin (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    outer = np.outer(axis, axis)
    sine, cosine = np.sin(angles), np.cos(angles)
    transforms = np.zeros((len(angles), 4, 4))
    transforms[:, 3, 3] = 1.0
    for i, j in np.ndindex(3, 3):
        # R = cos I + sin [axis]x + (1 - cos) axis axis^T; entries that stay zero are left out.
        of_cosine, of_sine, constant = (i == j) - outer[i, j], cross[i, j], outer[i, j]
        if of_cosine or of_sine or constant:
            transforms[:, i, j] = of_cosine * cosine + of_sine * sine + constant
    return transforms


def link_poses(joints: list[Joint], angles: Array) -> dict[str, Array]:
    """Pose of every link in the frame of the robot's base, (N, 4, 4) each; links that cannot move have (4, 4)."""
    poses: dict[str, Array] = {joints[0].parent: np.eye(4)}
    moving = iter(angles)
    for joint in joints:
        local = joint.origin if joint.axis is None else joint.origin @ rotations_about(joint.axis, next(moving))
        poses[joint.child] = poses[joint.parent] @ local
    return poses


def follow(joints: list[Joint], angles: Array, tool: str) -> dict[str, Array]:
    """The tool's path and poses, and the box (lowest and highest x, y, z) that each link's frame stays in."""
    samples = angles.shape[1]
    path = np.empty((3, samples))
    kept = []
    lowest = np.full((len(joints), 3), np.inf)
    highest = np.full((len(joints), 3), -np.inf)
    for start in range(0, samples, SEGMENT):
        poses = link_poses(joints, angles[:, start : start + SEGMENT])
        for i, joint in enumerate(joints):
            positions = np.ascontiguousarray(poses[joint.child][..., :3, 3].T).reshape(3, -1)
            lowest[i] = np.minimum(lowest[i], positions.min(axis=1))
            highest[i] = np.maximum(highest[i], positions.max(axis=1))
        path[:, start : start + SEGMENT] = poses[tool][:, :3, 3].T
        kept.append(poses[tool][::KEEP_EVERY])
    return {"tool_path": path, "tool_pose": np.concatenate(kept), "link_box": np.stack([lowest, highest])}


def error_bound(joints: list[Joint]) -> float:
    """Bound on every entry of every pose.

    A product of rigid transforms with translations of at most `reach` rounds with an error of at
    most `rounding` an entry. What follows multiplies that error from the left and from the right
    by rigid transforms: entries grow by their row sums (sqrt(3) + reach) and column sums
    (1 + sqrt(3) reach) at most. Errors of the chain's products add up.
    """
    reach = max(1.0, sum(float(np.sqrt(np.sum(joint.origin[:3, 3] ** 2))) for joint in joints))
    rounding = PRODUCT_ERROR * float(np.finfo(np.float64).eps) * reach**2
    products = sum(1 if joint.axis is None else 2 for joint in joints)
    root = float(np.sqrt(3.0))
    return products * rounding * (root + reach) * (1.0 + root * reach)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Forward kinematics of a UR5e arm over an hour of motion.")
    parser.add_argument("--size", type=float, default=1.0, help="hours of motion (default 1)")
    parser.add_argument("--repeat", type=int, default=3, help="times to compute; the best time counts (default 3)")
    parser.add_argument("--save", metavar="FILE.npz", help="write the results here")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    joints = read_urdf(airo_models.get_urdf_path("ur5e"))
    angles = smooth_motion(joints, max(1000, round(options.size * HOUR * SAMPLE_RATE)))
    seconds = np.inf
    for _ in range(max(1, options.repeat)):
        start = time.perf_counter()
        results = follow(joints, angles, "tool0")
        seconds = min(seconds, time.perf_counter() - start)

    low, high = results["link_box"][:, [joint.child for joint in joints].index("tool0")]
    print(f"UR5e, {len(joints)} joints, {angles.shape[1]} samples: {seconds:.3f} s")
    print("The tool stayed in " + " x ".join(f"[{a:+.3f}, {b:+.3f}]" for a, b in zip(low, high, strict=True)) + " m")
    if options.save:
        bound = error_bound(joints)
        saved: dict[str, Any] = {"seconds": seconds} | results | {f"{name}_bound": bound for name in results}
        np.savez(options.save, **saved)


if __name__ == "__main__":
    main()
