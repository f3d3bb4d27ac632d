"""What can be asked of a model; knows no transport. One file an operation, one line here."""

from service.operations.decode import Decode
from service.operations.encode import Encode
from service.operations.log_prob import LogProb
from service.operations.sample import Sample
from service.operations.score import Score
from service.operations.spec import Operation

OPERATIONS: tuple[type[Operation], ...] = (LogProb, Score, Encode, Decode, Sample)

__all__ = ["OPERATIONS", "Operation"]
