"""How many messages can one bridge follow? Prints the floor, a bridge's thread and decoding everything side by side.

The floor is what libzmq hands over; then what a bridge does with each message, header alone; then the same with every
mask decoded, as a screen would need it. The last line is JSON. Knows nothing about Modbus, OPC UA and MQTT.

    python tools/bench_bridge.py [--height 3000 --width 4000] [--cameras 8] [--messages 2000]
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import zmq

from fbft_edge.bridges.camera_state import CameraState
from fbft_edge.clock import now_ns
from fbft_edge.frames.frame import Detection, Frame, Region, Verdict
from fbft_edge.messages.header import Health, topic_for
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.writing import MessageWriter, encode_detection
from fbft_edge.sockets.subscriber import ResultSubscriber

SITE = "site"
TARGET_HZ = 30
BLOTS = 40


def messages(cameras: Sequence[str], height: int, width: int) -> list[list[bytes]]:
    """One anomalous message of each camera, with a mask of blots."""
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), bool)
    regions = []
    for y, x in rng.integers(0, (height - 60, width - 60), (BLOTS, 2)).tolist():
        mask[y : y + 60, x : x + 60] |= rng.random((60, 60)) > 0.2
        regions.append(Region((x, y, x + 60, y + 60), 3600, 1.0, (x + 30.0, y + 30.0)))
    frame = Frame("camera", 1, now_ns(), np.zeros((1, 1, 3), np.uint8))
    encoded = encode_detection(frame, Detection(0.9, 1.0, mask, tuple(regions), True))
    ledger = Ledger().snapshot()
    return [
        MessageWriter(SITE, camera, 0.5, "ab" * 32).write(encoded, Verdict.ANOMALOUS, now_ns(), ledger, Health("ok"))
        for camera in cameras
    ]


def rate_hz(parts: Sequence[list[bytes]], count: int, take: Callable[[str], Callable[[], object]]) -> float:
    """Messages per second of CPU that a reader takes, with a sender that never waits long for it."""
    context = zmq.Context()
    with context.socket(zmq.PUB) as sender:
        sender.setsockopt(zmq.XPUB_NODROP, 1)
        port = sender.bind_to_random_port("tcp://127.0.0.1")
        is_over = threading.Event()

        def send() -> None:
            number = 0
            while not is_over.is_set():
                try:
                    sender.send_multipart(parts[number % len(parts)], zmq.NOBLOCK, copy=False)
                    number += 1
                except zmq.Again:
                    time.sleep(0.001)

        sending = threading.Thread(target=send)
        receive = take(f"tcp://127.0.0.1:{port}")
        sending.start()
        try:
            for _ in range(len(parts)):
                receive()
            start_s = time.thread_time()
            for _ in range(count):
                receive()
            return count / (time.thread_time() - start_s)
        finally:
            is_over.set()
            sending.join()
            context.destroy(linger=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option, default in (("--height", 3000), ("--width", 4000), ("--cameras", 8), ("--messages", 2000)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    cameras = [f"camera-{number}" for number in range(args.cameras)]
    parts = messages(cameras, args.height, args.width)
    subscribers: list[ResultSubscriber] = []

    def subscribed(endpoint: str) -> ResultSubscriber:
        subscribers.append(ResultSubscriber(endpoint, site=SITE, camera=cameras, every=True))
        return subscribers[-1]

    def floor(endpoint: str) -> Callable[[], object]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        for camera in cameras:
            socket.setsockopt(zmq.SUBSCRIBE, topic_for(SITE, camera).encode())
        socket.connect(endpoint)
        return lambda: socket.recv_multipart(copy=False)

    def bridge(endpoint: str) -> Callable[[], object]:
        subscriber, states = subscribed(endpoint), {camera: CameraState(camera) for camera in cameras}

        def take() -> object:
            result = subscriber.receive()
            return result and states[result.camera].receive(result)

        return take

    def everything(endpoint: str) -> Callable[[], object]:
        subscriber = subscribed(endpoint)

        def take() -> object:
            result = subscriber.receive()
            return result and result.mask

        return take

    needed_hz = TARGET_HZ * len(cameras)
    sizes = f"{args.cameras} cameras, {args.width} x {args.height} px, {len(parts[0][2])} bytes of mask"
    print(f"{sizes}; needed: {needed_hz} messages/s")
    figures = {}
    for name, take in (("floor", floor), ("bridge", bridge), ("everything decoded", everything)):
        hz = rate_hz(parts, args.messages if take is not everything else max(20, args.messages // 50), take)
        figures[name] = round(hz, 1)
        print(f"{name:20} {hz:10.0f} messages/s of its thread   {hz / needed_hz:8.2f} of what is needed")
    for subscriber in subscribers:
        subscriber.close()
    print(json.dumps({"benchmark": "bridge", "cameras": args.cameras, "needed_hz": needed_hz, **figures}))


if __name__ == "__main__":
    main()
