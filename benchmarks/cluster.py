"""A search on machines that share nothing but data: one is lost in the middle, another joins.

    sudo env PATH="$PATH" python benchmarks/cluster.py --kill-after 50 -- --space dpc \
        --data streets:size=64x96,train=32,val=8,test=8 --budget 10trials --rungs 20,60 --full-steps 20

The machines are made of Linux namespaces: each has its own network, process numbers and temporary folder, so that the
run folder is seen on the first alone. The second is killed after `--kill-after` seconds, and the fourth joins. The line
tells the jobs by what became of them, and that no machine keeps anything. Runs as root, on Linux.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

BRIDGE, NETWORK, PORT = "nasseg-br", "10.77.0", 6379
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex(), "HOME": "/tmp"}
PROGRAM = """
import json
from pathlib import Path
from nasseg.experiment.experiment import Experiment
trials = Experiment.open(Path("/tmp/run")).planner.trials
outcomes = [outcome.status for trial in trials for runs in (trial.proxy, trial.full) for outcome in runs.values()]
print(json.dumps({status: outcomes.count(status) for status in sorted(set(outcomes))}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill-after", type=float, default=60)
    parser.add_argument("options", nargs="*", help="of nasseg search, after --")
    args = parser.parse_args()
    with ExitStack() as stack:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(run, "ip", "link", "del", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        head = Machine(0, stack)
        head.start("--head", f"--port={PORT}", "--include-dashboard=false")
        others = [Machine(number, stack) for number in (1, 2, 3)]
        lost, _, late = others
        for other in others[:2]:
            other.join()
        nasseg = [
            sys.executable,
            "-m",
            "nasseg",
            "search",
            "--out",
            "/tmp/run",
            "--ray-address",
            f"{head.address}:{PORT}",
        ]
        search = head.run([*nasseg, *args.options])
        time.sleep(args.kill_after)
        print("killing a machine", flush=True)
        lost.kill()
        late.join()
        exit_code = search.wait()
        outcomes = head.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
        left = [
            machine.run(["sh", "-c", "ls -d /tmp/nasseg-*"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for machine in others[1:]
        ]
        found = {
            "benchmark": "cluster",
            "exit_code": exit_code,
            "jobs": json.loads(outcomes.communicate()[0]),
            "folders_left": sum(len(process.communicate()[0].split()) for process in left),
        }
        print(json.dumps(found))


class Machine:
    """A machine of the cluster: namespaces of its own."""

    def __init__(self, number, stack):
        self.name, self.address = f"nasseg{number}", f"{NETWORK}.{number + 1}"
        run("ip", "netns", "add", self.name)
        stack.callback(run, "ip", "netns", "del", self.name)
        run("ip", "link", "add", f"{self.name}v", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"{self.name}v", "master", BRIDGE, "up")
        for command in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            run("ip", "-n", self.name, *command)
        self._ray = None
        stack.callback(self.kill)

    def join(self):
        """Join the cluster of the first machine."""
        self.start(f"--address={NETWORK}.1:{PORT}")

    def start(self, *options):
        """Start Ray with one core."""
        ray = Path(sys.executable).with_name("ray")
        common = [f"--node-ip-address={self.address}", "--num-cpus=1", "--object-store-memory=100000000", "--block"]
        inside = 'mount -t tmpfs none /tmp && mount -t proc none /proc && exec "$0" "$@"'
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside]
        self._ray = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *unshare, ray, "start", *options, *common],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(10)

    def run(self, command, **pipes):
        """Start a command on it."""
        first = subprocess.run(["pgrep", "-P", str(self._ray.pid)], capture_output=True, text=True, check=True).stdout
        return subprocess.Popen(
            ["nsenter", "-t", first.split()[0], "-m", "-p", "-n", "--wd=/", "--", *command], env=ENVIRONMENT, **pipes
        )

    def kill(self):
        """Switch it off."""
        if self._ray is not None:
            self._ray.kill()
            self._ray.wait()


def run(*command):
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
