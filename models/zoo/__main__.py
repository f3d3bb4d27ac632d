"""`python -m models.zoo`: train the zoo again."""

from models.zoo.train import main

main()
