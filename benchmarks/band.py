"""Whether random points of a space at a target latency lie in the band below it, and run as fast as predicted.

    OMP_NUM_THREADS=1 python benchmarks/band.py --space encoder_decoder --latency TABLE.json --target 6ms --classes 11

Draws `--points` shapes, each scaled to the target by the table, and counts those in [0.92, 1] of it and the time
that a draw takes, shapes that cannot reach the band included. Then measures `--measured` of them in turns, in the
table's conditions, and compares with what was predicted: the error with and without the mean bias, which a machine that
is faster or slower than when the table was made adds to all. They are measured twice, so that it shows by how much two
measurements differ.
"""

import argparse
import json
import random
import statistics
import time

import torch

from nasseg import plugins
from nasseg.cost.latency_table import LatencyTable
from nasseg.cost.load import OthersLoad
from nasseg.cost.profile import time_networks
from nasseg.jobs.pricing import Pricing
from nasseg.planning.fitting import BAND, Fitting
from nasseg.planning.limits import Limits
from nasseg.rank_correlation import spearman


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="encoder_decoder")
    parser.add_argument("--latency", required=True, help="table of this machine")
    parser.add_argument("--target", action="append", required=True, help="like 6ms; several give a part each")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--measured", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    space, table = plugins.space(args.space, named_by_user=args.space), LatencyTable.load(args.latency)
    torch.set_num_threads(table.conditions.threads)
    found = {target: of_target(args, space, table, target) for target in args.target}
    print(json.dumps({"benchmark": "band", **vars(args), "torch": torch.__version__, "targets": found}))


def of_target(args, space, table, target):
    limits = Limits.parse(target_latency=target)

    def built(choice):
        return space.architecture(choice, args.classes)

    pricing = Pricing(table.conditions.size, limits, table)
    fitting, start = Fitting(space, lambda choice: pricing.constraints(built(choice))), time.process_time()
    drawn = [fitting.draw(random.Random(f"{target}/{number}")) for number in range(args.points)]
    draw_ms = (time.process_time() - start) / args.points * 1e3
    networks = [built(fitted.choice) for fitted in drawn]
    shares = [table.latency_ms(network) / limits.latency_ms for network in networks]
    in_band = sum(BAND <= share <= 1 for share in shares)

    some, others = networks[: args.measured], OthersLoad(torch.device(args.device))
    measured, again = (
        time_networks(some, table.conditions, torch.device(args.device), args.minutes * 60) for _ in range(2)
    )
    repeated = off_without_bias([ms / first for ms, first in zip(again, measured, strict=True)])
    ratios = [ms / share / limits.latency_ms for ms, share in zip(measured, shares, strict=False)]
    bias, errors, apart = statistics.median(ratios), [abs(ratio - 1) for ratio in ratios], off_without_bias(ratios)
    print(
        f"{target}: {in_band} of {args.points} in [{BAND}, 1] of it, {draw_ms:.0f} ms a draw; measured {len(some)}: "
        f"{statistics.mean(errors):.1%} off on average, {sum(e <= 0.05 for e in errors)} within 5 %, at most "
        f"{max(errors):.0%}; without the bias of {bias - 1:+.1%}: {statistics.mean(apart):.1%}, "
        f"{sum(e <= 0.05 for e in apart)} within 5 %; a second measurement differs by {statistics.mean(repeated):.1%}; "
        f"others used {others.share or 0:.0%} of the machine",
        flush=True,
    )
    return {
        "in_band": in_band,
        "draw_ms": draw_ms,
        "mean_error": statistics.mean(errors),
        "mean_error_without_bias": statistics.mean(apart),
        "bias": bias,
        "repeated": statistics.mean(repeated),
        "within_5_percent": sum(error <= 0.05 for error in errors),
        "within_5_percent_without_bias": sum(error <= 0.05 for error in apart),
        "spearman_in_band": spearman(shares[: len(measured)], measured),
        "others_share": others.share,
    }


def off_without_bias(ratios):
    """Return by how much each of the ratios differs from their median, as a share."""
    bias = statistics.median(ratios)
    return [abs(ratio / bias - 1) for ratio in ratios]


if __name__ == "__main__":
    main()
