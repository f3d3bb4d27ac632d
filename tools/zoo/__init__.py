"""How the zoo of trained models is made: recipes, training, overview."""
