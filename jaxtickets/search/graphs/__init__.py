"""Weight-agnostic nets: graphs evolved until they work with one weight for all connections.

    population = genome.first_population(key, sizes, capacity, individuals=960, share=0.05)
    rewards, accuracies = evaluation.score(individual, images, labels, weights, sizes)   # of one
    population, info = evolution.generation(key, population, rewards, sizes, settings)

Gaier and Ha, "Weight agnostic neural networks", 2019, arXiv:1906.04358.
"""
