"""What each family costs, readable where a model is served by its graphs, without torch."""

from collections.abc import Mapping

from models.families.about import ONE_PASS, SOLVER, Cost

COSTS: Mapping[str, Cost] = {
    "chain": Cost(
        encode="1 (that of its layers)",
        decode="1 (that of its layers: D of an autoregressive one)",
    ),
    "cnf_unet": SOLVER,
    "ffjord": SOLVER,
    "ffjord_image": SOLVER,
    "gf": Cost(encode="0", decode="0 and a search of each feature"),
    "glow": ONE_PASS,
    "iaf": Cost(encode="D (decoding=jacobi: D at most, until nothing changes)", decode="1"),
    "jet": ONE_PASS,
    "maf": Cost(
        encode="1",
        decode="D (decoding=jacobi: at most; one_pass=decode: the other way round)",
    ),
    "naf": Cost(encode="1", decode="D, and a search of each feature"),
    "nice": ONE_PASS,
    "nsf": Cost(
        encode="1", decode="1 (structure=autoregressive: D; with decoding=jacobi: at most)"
    ),
    "pixelcnn": Cost(
        encode="1",
        decode="row by row, of each as many as it has values at most (jacobi: D)",
    ),
    "planar": Cost(
        encode="0", decode="0 and a search a map (leaky_relu: none; formula=decode: in encode)"
    ),
    "radial": Cost(encode="0", decode="0"),
    "realnvp": ONE_PASS,
    "realnvp_image": ONE_PASS,
    "tarflow": Cost(
        encode="1", decode="one a patch (decoding=jacobi: at most, until nothing changes)"
    ),
}


def describe_cost(family: str) -> dict[str, str] | None:
    """The cost of a family by operation, None of one that is not known here."""
    cost = COSTS.get(family)
    return None if cost is None else {"encode": cost.encode, "decode": cost.decode}
