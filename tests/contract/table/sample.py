"""POST /sample: x = f^-1(z) of noise that is drawn from a seed, and log p(x)."""

# The bytes of an answer stand on one line.
# ruff: noqa: E501

import numpy as np

from tests.contract.case import NPY, NPZ, PNG, Case, NotInV2, npy, npz, ok, problem

_NO_PICTURES = NotInV2("the protocol has no pictures")
_NO_ARCHIVES = NotInV2("the protocol has no archives")
_NO_QUERY = NotInV2("the protocol has no query")


def _line(**more: object) -> dict[str, object]:
    return {"model": "line", **more}


CASES = [
    # Answers
    Case(
        "one row",
        "sample",
        _line(seed=7),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
    ),
    Case(
        "rows",
        "sample",
        _line(num_samples=3, seed=7),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606],[-2.4465277,0.45142603,0.1924078],[1.8478758,1.5668325,-2.6859524]],"log_prob":[-4.607151,-3.2292876,-4.623294]}'
        ),
    ),
    Case(
        "temperature",
        "sample",
        _line(num_samples=2, seed=7, temperature=0.5),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-1.4035643,0.8484195,1.3086803],[-1.2232639,0.22571301,0.0962039]],"log_prob":[-3.1316767,-2.7984796]}'
        ),
    ),
    Case(
        "temperature zero is the mode",
        "sample",
        _line(num_samples=2, seed=1, temperature=0),
        ok(
            b'{"model":"line","version":"3","seed":1,"x":[[0.0,0.0,0.0],[0.0,0.0,0.0]],"log_prob":[-2.7568157,-2.7568157]}'
        ),
    ),
    Case(
        "first row",
        "sample",
        _line(num_samples=1, seed=7, first_row=2),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[1.8478758,1.5668325,-2.6859524]],"log_prob":[-4.623294]}'
        ),
    ),
    Case(
        "no log_prob",
        "sample",
        _line(num_samples=2, seed=7, return_log_prob=False),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606],[-2.4465277,0.45142603,0.1924078]]}'
        ),
    ),
    Case(
        "the largest seed",
        "sample",
        _line(seed=2**64 - 1, temperature=0),
        ok(
            b'{"model":"line","version":"3","seed":18446744073709551615,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}'
        ),
    ),
    Case(
        "null is absent",
        "sample",
        _line(num_samples=None, seed=7, temperature=None, first_row=None, context=None),
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
    ),
    Case(
        "float64",
        "sample",
        {"model": "wide", "seed": 7},
        ok(
            b'{"model":"wide","version":"3","seed":7,"x":[[-2.8071286700679523,1.6968390287187698]],"log_prob":[-2.8318902401134425]}'
        ),
    ),
    Case(
        "pixels",
        "sample",
        {"model": "grey", "seed": 7},
        ok(
            b'{"model":"grey","version":"3","seed":7,"x":[[[[-2.8071287,1.696839],[2.6173606,-2.4465277]]]],"log_prob":[-6.2742767]}'
        ),
    ),
    Case(
        "context",
        "sample",
        {"model": "steered", "num_samples": 2, "seed": 7, "temperature": 0, "context": [[1, 2]]},
        ok(
            b'{"model":"steered","version":"3","seed":7,"x":[[5.0,5.0],[5.0,5.0]],"log_prob":[-1.837877,-1.837877]}'
        ),
    ),
    Case(
        "a context a row",
        "sample",
        {
            "model": "steered",
            "num_samples": 2,
            "seed": 7,
            "temperature": 0,
            "context": [[1, 2], [3, 4]],
        },
        ok(
            b'{"model":"steered","version":"3","seed":7,"x":[[5.0,5.0],[11.0,11.0]],"log_prob":[-1.837877,-1.837877]}'
        ),
    ),
    Case(
        "label",
        "sample",
        {"model": "labelled", "num_samples": 2, "seed": 7, "temperature": 0, "context": 2},
        ok(
            b'{"model":"labelled","version":"3","seed":7,"x":[[3.0,3.0],[3.0,3.0]],"log_prob":[-1.837877,-1.837877]}'
        ),
    ),
    Case(
        "flow",
        "sample",
        {"model": "flow", "seed": 7},
        ok(
            b'{"model":"flow","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
    ),
    Case(
        "flow, no log_prob",
        "sample",
        {"model": "flow", "seed": 7, "return_log_prob": False},
        ok(b'{"model":"flow","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]]}'),
    ),
    Case(
        "default model",
        "sample",
        {"seed": 7},
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
        settings={"default_model": "line"},
        v2=NotInV2("the path names the model"),
    ),
    Case(
        "one row, no log_prob",
        "sample",
        _line(seed=7, return_log_prob=False),
        ok(b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]]}'),
    ),
    # Other forms
    Case(
        "no body",
        "sample",
        b"",
        ok(
            b'{"model":"line","version":"3","seed":7,"x":[[-2.8071287,1.696839,2.6173606]],"log_prob":[-4.607151]}'
        ),
        "model=line&num_samples=1&seed=7",
        {"Content-Type": None},
    ),
    Case(
        "query",
        "sample",
        b"",
        ok(
            b'{"model":"labelled","version":"3","seed":5,"x":[[3.0,3.0],[3.0,3.0]],"log_prob":[-1.837877,-1.837877]}'
        ),
        "model=labelled&num_samples=2&seed=5&context=2&temperature=0",
        v2=_NO_QUERY,
    ),
    Case(
        "npy out",
        "sample",
        _line(num_samples=2, seed=7),
        ok(
            npy(
                [
                    [-2.807128667831421, 1.6968389749526978, 2.6173605918884277],
                    [-2.4465277194976807, 0.45142602920532227, 0.19240780174732208],
                ],
                "<f4",
            ),
            NPY,
            x_model="line",
            x_model_version="3",
            x_seed="7",
        ),
        headers={"Accept": NPY},
        v2=NotInV2("a tensor alone has no names"),
    ),
    Case(
        "npz out",
        "sample",
        _line(num_samples=2, seed=7),
        ok(
            {
                "x": np.array(
                    [
                        [-2.807128667831421, 1.6968389749526978, 2.6173605918884277],
                        [-2.4465277194976807, 0.45142602920532227, 0.19240780174732208],
                    ],
                    "<f4",
                ),
                "log_prob": np.array([-4.607151031494141, -3.229287624359131], "<f4"),
                "seed": np.array(7, "<i8"),
            },
            NPZ,
            x_model="line",
            x_model_version="3",
            x_seed="7",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "npz in",
        "sample",
        npz(context=[[1.0, 2.0]]),
        ok(b'{"model":"steered","version":"3","seed":7,"x":[[5.0,5.0]],"log_prob":[-1.837877]}'),
        "model=steered&seed=7&temperature=0",
        {"Content-Type": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "picture out",
        "sample",
        {"model": "grey", "seed": 7, "temperature": 20},
        ok([[0, 34], [52, 0]], PNG, x_model="grey", x_model_version="3", x_seed="7"),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
    Case(
        "npy in",
        "sample",
        npy([1]),
        problem(
            "unsupported_media_type",
            "Content-Type: expected application/json or application/x-npz, got 'application/x-npy'",
        ),
        "model=line",
        {"Content-Type": NPY},
        v2=NotInV2("bytes are tensors there"),
    ),
    Case(
        "npz out of the largest seed",
        "sample",
        _line(seed=2**64 - 1, temperature=0),
        ok(
            {
                "x": np.array([[0.0, 0.0, 0.0]], "<f4"),
                "log_prob": np.array([-2.7568156719207764], "<f4"),
                "seed": np.array(18446744073709551615, "<u8"),
            },
            NPZ,
            x_model="line",
            x_model_version="3",
            x_seed="18446744073709551615",
        ),
        headers={"Accept": NPZ},
        v2=_NO_ARCHIVES,
    ),
    Case(
        "seed 0",
        "sample",
        _line(seed=0, temperature=0),
        ok(b'{"model":"line","version":"3","seed":0,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}'),
    ),
    Case(
        "seed 2^53 + 1",
        "sample",
        _line(seed=2**53 + 1, temperature=0),
        ok(
            b'{"model":"line","version":"3","seed":9007199254740993,"x":[[0.0,0.0,0.0]],"log_prob":[-2.7568157]}'
        ),
    ),
    # Refusals
    Case(
        "no samples",
        "sample",
        _line(num_samples=0),
        problem("out_of_range", "num_samples: expected 1 .. 1000, got 0", "/num_samples"),
    ),
    Case(
        "-1 samples",
        "sample",
        _line(num_samples=-1),
        problem("out_of_range", "num_samples: expected 1 .. 1000, got -1", "/num_samples"),
    ),
    Case(
        "1.5 samples",
        "sample",
        _line(num_samples=1.5),
        problem(
            "invalid_parameter",
            "num_samples: expected a whole number 1 .. 1000, got 1.5",
            "/num_samples",
        ),
    ),
    Case(
        "true samples",
        "sample",
        _line(num_samples=True),
        problem(
            "invalid_parameter",
            "num_samples: expected a whole number 1 .. 1000, got true or false",
            "/num_samples",
        ),
    ),
    Case(
        "text samples",
        "sample",
        _line(num_samples="x10"),
        problem(
            "invalid_parameter",
            "num_samples: expected a whole number 1 .. 1000, got 'x10'",
            "/num_samples",
        ),
    ),
    Case(
        "1e30 samples",
        "sample",
        _line(num_samples=1e30),
        problem(
            "out_of_range",
            "num_samples: expected 1 .. 1000, got 1e+30",
            "/num_samples",
        ),
    ),
    Case(
        "temperature -1",
        "sample",
        _line(temperature=-1),
        problem("out_of_range", "temperature: expected 0 .. 1000, got -1", "/temperature"),
    ),
    Case(
        "temperature 1e308",
        "sample",
        _line(temperature=1e308),
        problem("out_of_range", "temperature: expected 0 .. 1000, got 1e+308", "/temperature"),
    ),
    Case(
        "temperature NaN",
        "sample",
        b'{"model":"line","temperature":NaN}',
        problem("out_of_range", "temperature: expected 0 .. 1000, got nan", "/temperature"),
    ),
    Case(
        "temperature text",
        "sample",
        _line(temperature="hot"),
        problem(
            "invalid_parameter",
            "temperature: expected a number 0 .. 1000, got 'hot'",
            "/temperature",
        ),
    ),
    Case(
        "seed -1",
        "sample",
        _line(seed=-1),
        problem("out_of_range", "seed: expected 0 .. 18446744073709551615, got -1", "/seed"),
    ),
    Case(
        "seed 2^64",
        "sample",
        _line(seed=2**64),
        problem(
            "out_of_range", "seed: expected 0 .. 18446744073709551615, got 1.84467e+19", "/seed"
        ),
    ),
    Case(
        "seed text",
        "sample",
        _line(seed="x"),
        problem(
            "invalid_parameter",
            "seed: expected a whole number 0 .. 18446744073709551615, got 'x'",
            "/seed",
        ),
    ),
    Case(
        "first row -1",
        "sample",
        _line(first_row=-1),
        problem("out_of_range", "first_row: expected 0 .. 9007199254740992, got -1", "/first_row"),
    ),
    Case(
        "first row text",
        "sample",
        _line(first_row="x"),
        problem(
            "invalid_parameter",
            "first_row: expected a whole number 0 .. 9007199254740992, got 'x'",
            "/first_row",
        ),
    ),
    Case(
        "return_log_prob 1",
        "sample",
        _line(return_log_prob=1),
        problem(
            "invalid_parameter",
            "return_log_prob: expected true or false, got 1",
            "/return_log_prob",
        ),
        v2=NotInV2("outputs are named there"),
    ),
    Case(
        "label too large",
        "sample",
        {"model": "labelled", "num_samples": 2, "context": [0, 4]},
        problem("out_of_range", "context: expected labels 0 .. 3, row 1 has 4", "/context/1"),
    ),
    Case(
        "context missing",
        "sample",
        {"model": "steered"},
        problem(
            "missing_field",
            "context: this model needs one row of shape (2,) a row, or one for all",
            "/context",
        ),
    ),
    Case(
        "contexts of another count",
        "sample",
        {"model": "steered", "num_samples": 3, "context": [[1, 2], [3, 4]]},
        problem("shape_mismatch", "context: expected 3 rows or 1 for all, got 2", "/context"),
    ),
    Case(
        "unknown field",
        "sample",
        _line(sed=7),
        problem(
            "unknown_field",
            "'sed': no such field, expected model, num_samples, seed, temperature, first_row, columns, context, scale, return_log_prob, return_evaluations, trajectory; did you mean 'seed'?",
            "/sed",
        ),
    ),
    Case(
        "field of another operation",
        "sample",
        _line(x=[[1, 2, 3]]),
        problem(
            "unknown_field",
            "'x': no such field, expected model, num_samples, seed, temperature, first_row, columns, context, scale, return_log_prob, return_evaluations, trajectory",
            "/x",
        ),
        v2=NotInV2("x is a question there: encode"),
    ),
    Case(
        "unknown model",
        "sample",
        {"model": "lune"},
        problem("model_not_found", "model: expected one of line, wide, got 'lune'"),
    ),
    Case(
        "scale without a picture",
        "sample",
        {"model": "grey", "scale": 2},
        problem(
            "invalid_parameter", "scale: only pictures have one, send Accept: image/png", "/scale"
        ),
        v2=_NO_PICTURES,
    ),
    Case(
        "query twice",
        "sample",
        b"",
        problem("invalid_parameter", "seed: given twice in the query string", "/seed"),
        "model=line&seed=1&seed=2",
        v2=_NO_QUERY,
    ),
    Case(
        "query no number",
        "sample",
        b"",
        problem(
            "invalid_parameter",
            "seed: expected a number, true or false in the query string, got 'abc'",
            "/seed",
        ),
        "model=line&seed=abc",
        v2=_NO_QUERY,
    ),
    # Columns of the answer
    Case(
        "columns",
        "sample",
        {"model": "wide", "seed": 7, "columns": ["speed", "mass"]},
        ok(
            b'{"model":"wide","version":"3","seed":7,"x":[[1.6968390287187698,-2.8071286700679523]],"log_prob":[-2.8318902401134425]}'
        ),
    ),
    Case(
        "columns in the query, no body",
        "sample",
        b"",
        ok(
            b'{"model":"wide","version":"3","seed":7,"x":[[1.6968390287187698,-2.8071286700679523]],"log_prob":[-2.8318902401134425]}'
        ),
        "model=wide&seed=7&columns=speed,mass",
    ),
    Case(
        "a column missing",
        "sample",
        {"model": "wide", "seed": 7, "columns": ["speed"]},
        problem(
            "missing_field", "columns: column 'mass' is missing, expected mass, speed", "/columns"
        ),
    ),
    # States on the way
    Case(
        "states",
        "sample",
        _line(num_samples=2, seed=7, temperature=0, trajectory=3),
        ok(
            b'{"model":"line","version":"3","seed":7,"trajectory_at":["0 noise","1 Half","2 Half"],"x":[[0.0,0.0,0.0],[0.0,0.0,0.0]],"log_prob":[-2.7568157,-2.7568157],"trajectory":[[[0.0,0.0,0.0],[0.0,0.0,0.0],[0.0,0.0,0.0]],[[0.0,0.0,0.0],[0.0,0.0,0.0],[0.0,0.0,0.0]]]}'
        ),
    ),
    Case(
        "states of a class",
        "sample",
        {"model": "labelled", "seed": 7, "temperature": 0, "context": 2, "trajectory": 2},
        ok(
            b'{"model":"labelled","version":"3","seed":7,"trajectory_at":["0 noise","2 Half"],"x":[[3.0,3.0]],"log_prob":[-1.837877],"trajectory":[[[0.0,0.0],[3.0,3.0]]]}'
        ),
    ),
    Case(
        "states of a picture",
        "sample",
        {"model": "grey", "seed": 7, "trajectory": 2},
        problem(
            "invalid_parameter",
            "trajectory: an answer as image/png is x alone; ask for application/json or application/x-npz",
            "/trajectory",
        ),
        headers={"Accept": PNG},
        v2=_NO_PICTURES,
    ),
]
