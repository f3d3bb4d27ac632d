"""`python -m tools.zoo`: train the zoo again."""

from tools.zoo.train import main

main()
