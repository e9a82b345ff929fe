"""What all experiments promise: records, figures, and one line for what can't be."""

import dataclasses
import importlib
import json
import math
import pkgutil
import re
import sys
from pathlib import Path

import commands
import pytest

import experiments
import jaxtickets
from experiments.harness import event_files, pages, provenance, rows, settings
from jaxtickets.io.errors import UserError

LEADING = "method,density,seed,untrained_accuracy,trained_accuracy,seconds"
CHECKED = LEADING.replace("method,", "method,check,")
LEADS = {
    "structured_pruning": "method,after,rate,seed,dense_accuracy,cut_accuracy,trained_accuracy",
    "filter_search": "method,after,rate,seed,dense_accuracy,cut_accuracy,trained_accuracy",
    "slimming": "strength,pass,seed,sparse_accuracy,cut_accuracy,tuned_accuracy",
    "sparse_training": "method,check,density,seed,trained_accuracy,validation_accuracy",
    "criterion_comparison": CHECKED,
    "orthogonality": CHECKED,
    "mask_similarity": "density,layer,method_a,seed_a",
    "energy_study": CHECKED,
    "sa_frontier": LEADING.replace("method,", "method,budget,dense_trainings,"),
    "sparse_execution": "model,mask,density,seed,work,batch,form,dense_ms,ms,ratio",
    "portability": "model,parameters,",
    "any_model": "structure,kind,groups,units,left,difference",
    "sign_flips": "rule,variant,rate,density,seed,trained_accuracy,validation_accuracy",
    "learned_sparsity": "method,strength,asked,seed,density,factor,trained_accuracy",
    "classification": "model,dataset,method,net,density,seed,trained_accuracy",
    "weight_agnostic": "seed,population,generations,images,random_accuracy,tuned_accuracy",
    "neuron_fusion": "which,how,asked,before_density,retrain,seed,trained_accuracy",
    "ticket_transfer": "method,source,target,density,seed,untrained_accuracy",
    "strong_tickets": "method,coefficients,seed,test_accuracy,same_answers,largest_error",
    "compression": "stage,method,density,levels,seed,trained_accuracy",
}
FIGURES = {
    "imp_rewind": ("lottery", "curves", "layers"),
    "ticket_grid": ("grid", "cost"),
    "linear_connectivity": ("barriers", "lines"),
    "criterion_comparison": ("accuracies", "layers", "lost"),
    "mask_similarity": ("similarity",),
    "orthogonality": ("orthogonality",),
    "trainability": ("first_steps",),
    "supermask": ("supermasks", "plane"),
    "prune_retrain": ("pruning",),
    "structured_pruning": ("widths", "accuracies"),
    "filter_search": ("widths", "accuracies"),
    "slimming": ("accuracies", "scales"),
    "energy_study": ("energies",),
    "early_bird": ("mask_distances", "accuracy_over_draw"),
    "sparse_training": ("accuracies", "training", "layers"),
    "sa_frontier": ("accuracy_over_budget", "trained_over_untrained", "where", "evolution"),
    "annealed_training": ("accuracies", "heat", "chains", "agreement"),
    "sparse_execution": ("sparse",),
    "portability": ("differences",),
    "any_model": ("shares",),
    "sign_flips": ("overview", "flips", "accuracies"),
    "learned_sparsity": ("accuracies", "tickets"),  # nothing is cut in two epochs
    "classification": ("reliability", "entropy", "rejection", "shifts"),
    "weight_agnostic": ("overview",),
    "neuron_fusion": ("accuracies", "fused"),
    "strong_tickets": ("errors",),
    "compression": ("errors", "bytes"),
    "ticket_transfer": ("transfer",),
}
OWN_TEST = {"sa_search", "benchmark"}
"""Experiments whose runs a test file of their own looks at."""


def test_every_experiment_is_run():
    folders = {path.parent.name for path in Path(experiments.__file__).parent.glob("*/__main__.py")}
    assert folders - {"harness"} == OWN_TEST | set(FIGURES)


@pytest.mark.parametrize("experiment", FIGURES)
def test_a_run_leaves_its_records_and_figures_and_says_where(experiment, smokes):
    folder, done = smokes(experiment)
    best = pages.page_of(experiment).FIGURE
    assert done.stdout.splitlines()[-3:] == [
        f"figure: {folder / 'figures' / best}.png",
        f"report: {folder / 'report.html'}",
        f"run: {folder}",
    ]
    assert json.loads((folder / "spec.json").read_text())["experiment"] == experiment
    assert (folder / "summary.csv").read_text().startswith(LEADS.get(experiment, LEADING))
    (session,) = provenance.read(folder)
    assert sum(session["compile_seconds"].values()) > 0
    for name in FIGURES[experiment]:
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    report = (folder / "report.html").read_text(encoding="utf-8")
    drawn = {f"{name}.png" for name in FIGURES[experiment]}
    assert drawn <= set(re.findall(r'<img src="data:image/png;base64,[^"]+" alt="([^"]+)"', report))
    assert f"<span>experiments.{experiment}</span> <span>--smoke</span>" in report
    stepped = [
        row for part in rows.parts(folder) for row in rows.read_metrics(part) if "step" in row
    ]
    assert len(rows.read_csv(folder / "metrics.csv") if stepped else []) == len(stepped)
    places = " ".join({event_files.place_of(row) for row in stepped})
    assert not re.findall(r"\b(loss|accuracy|energy|mean|kept\S*|epoch|step)=", places)
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("experiment", FIGURES)
def test_a_page_has_the_table_that_the_run_prints(experiment, smokes, tmp_path):
    folder, done = smokes(experiment)
    pages.keep(folder, "smoke", tmp_path, FIGURES[experiment])
    kept = tmp_path / "experiments" / experiment / "results"
    assert all((kept / f"smoke-{name}.png").exists() for name in FIGURES[experiment])
    page = tmp_path / "experiments" / experiment / "README.md"
    markers = f"<!-- table: {experiment}/smoke -->", "<!-- end -->"
    page.write_text("\n".join(["# Question", "", *markers, ""]), encoding="utf-8")
    text = pages.write(page, tmp_path)
    table = text.partition("```text\n")[2].partition("\n```")[0].splitlines()
    printed = {line.rstrip() for line in done.stdout.splitlines()}
    assert len(table) > 1 and set(table) <= printed
    assert f"    python -m experiments.{experiment} --smoke" in text
    seeds = json.loads((folder / "spec.json").read_text()).get("seeds", 1)
    assert f"\nn = {seeds}{', mean' if seeds > 1 else ';'}" in text
    assert all(line in text for line in markers)
    page.write_text(text, encoding="utf-8")
    assert pages.write(page, tmp_path) == text


# --- bad input -----------------------------------------------------------------------------------

BAD = {
    "imp_rewind": {
        f"--seed={10**21}": f"--seed={10**21}: must be 2147483647 or less",
        "--widths=1000000000,1000000000": "must be 1000000 or less",
        "--widths=1000000,1000000": "--widths=1000000,1000000: 1 trainings take",
        "--seeds=1000000": "--seeds=1000000: 1000000 trainings take at least 293 GB of memory",
        "--reinits=1000000": "--reinits=1000000 --randoms=1: 2000004 trainings of a level take",
        "--width=1000000": "--width=1000000: 1000000 trainings of a block take",
        "--iterations=0 --epochs=1000000 --batch_size=10": "steps: must be 100000000 or less",
        "--levels=0": "levels=0: must be 1 or more",
        "--levels=40": "which needs 1: fewer levels or a lower rate",
        "--levels=40 --output_rate=0.01 --prune_rate=0.5": "weights in fc2/kernel, which needs 1",
        "--prune_rate=1.5": "--prune_rate=1.5: must be above 0 and below 1",
        "--rewind_step=180": "rewind_step=180: must be in the training, which has 180 steps",
        "--rewind_step=10": "must be a multiple of look_every=60",
        "--rewind_step=soon": "rewind_step=soon: a step (500), a fraction (0.01) or 2ep",
        "--control_levels=3": "control_levels=3: levels go from 1 to 2",
        "--criterion=magnitud": "did you mean magnitude",
        "--iterations=100": "100 training steps: must be a multiple of --look_every=60",
        "--test_every=50": "--test_every=50: must be a multiple of 60",
        "--test_every=120": "--test_every=120: must divide the 180 training steps",
        "--learning_rates=steps --drops=80,120": "--drops=80,120: must be fractions of the",
        "--learning_rates=steps --drops=0.5,0.5": "--drops=0.5,0.5: two fall on the same",
        "--rewind=none --learning_rates=cosine": "which --learning_rates=cosine brings to 0",
        "--rates=0": "--rates=0.0: must be above 0 and at most",
        "--preset=lth --model=scnn": "--preset=lth is for lenet300_100, conv2, conv4, conv6",
        "--preset=lth --model=conv2 --dataset=mnist": "of conv2 is for cifar10, not mnist",
        "--preset=openlht": "did you mean openlth",
        "word": "unexpected argument 'word'",
        "--resume --out=EMPTY": "nothing to resume",
    },
    "sparse_training": {
        "--methods=rigll": "did you mean rigl?",
        "--methods=rigl+hm": "did you mean ham?",
        "--methods=set,set": "--methods has set twice",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0.001 --floor=500": "static at density 0.001: density 0.001 keeps 24 ",
        "--move_every=5": "--move_every=5: must divide 14, the steps between evaluations",
        "--epochs=1 --move_every=14": "a training of 14 steps is too short for a move",
        "--begin=0": "--begin=0.0: must be above 0",
        "--methods=set --alpha=2": "--alpha: has no effect without ham in --methods",
        "--allocation=uniformly": "did you mean uniform?",
        "--penalty=group_lasso": "--execution=sparse: takes no --penalty",
        "--model=lenet5_29k --widths=": "--execution=sparse: the net must be dense layers alone",
        "--drops=0.5": "--drops: has no effect with --learning_rates=cosine",
        "--seeds=1000000": "--seeds=1000000: 1000000 trainings take",
        "--preset=annealing": "unknown preset 'annealing'",
        "--steps=20": "Unknown command line flag 'steps'",
    },
    "ticket_grid": {
        "--thresholds=100": "--thresholds=100.0: must be above 0 and below 100",
        "--thresholds=99.9999 --floor=0": "keeps no weight at all",
        "--rewinds=2": "rewinds=2: must be whole epochs of the training, which has 2",
        "--rewinds=0.5": "rewinds=0.5: must be whole epochs",
        "--thresholds=many": "must be numbers",
        "--share_cells": "--share_cells: give the folder that the processes share by --out",
        "--form=tiny": "unknown form 'tiny': known: ",
        "--form=small": "--form=small: lenet300_100 has no attribute form",
        "--preset=mobilenetv2": "did you mean mobilenet_v2",
        "--estimate --form=large": "lenet300_100 has no attribute form",
    },
    "criterion_comparison": {
        "--noevaluate": "--noevaluate: only with --notrain",
        "--criteria=magnitud": "unknown criterion 'magnitud': one of magnitude, ",
        "--density=1.5": "--density=1.5: must be above 0 and at most 1",
        "--density=0.000001": "keeps no weight at all",
        "--density=0.0001 --allocation=uniform": "raise the density or set a floor",
        "--checks=reverted": "unknown checks 'reverted': did you mean inverted?",
        "--tickets=x=EMPTY/*": "/*: there is no such folder",
        "--preset=thesiss": "did you mean thesis",
    },
    "trainability": {
        "--first_steps=45": "--first_steps=45: must be a multiple of --mean_of=10",
        "--first_batch=5000": "--first_batch=5000: there are only 1000",
        "--targets=low": "must be numbers",
        "--targets=-1": "--targets=-1.0: must be 0 or more",
        "--learning_rate=inf": "--learning_rate=inf: must be above 0 and at most 1e+06",
        "--criteria=": "--criteria is empty: give one or more, or --tickets",
        "--precision=tf32": "--precision=tf32: CPUs have float32 and bfloat16 only",
    },
    "prune_retrain": {
        "--thresholds=1": "--thresholds=1: must be above 0 and below 1",
        "--models=lenet300_10": "did you mean lenet300_100",
        "--rule=std": "unknown rule 'std'",
        "--retrain_rate=0": "--retrain_rate=0.0: must be above 0",
        "--scale_dropout": "--scale_dropout: lenet300_100 has no dropout",
    },
    "structured_pruning": {
        "--methods=fpgn": "unknown method 'fpgn': did you mean fpgm?",
        "--methods=abs_batch_norm": "--methods=abs_batch_norm: conv1 has no batch norm",
        "--after=scratch": "unknown after 'scratch': did you mean scratch_",
        "--rates=1.5": "--rates=1.5: must be above 0 and at most 1",
        "--rates=0.05 --floor=0": "--rates=0.05: no unit is left in conv1: raise the density",
        "--budget=0.00001 --methods=l1": "--budget=1e-05: the smallest selection takes",
        "--budget=0.5": "--methods=soft_fpgm zeroes a share of each layer: leave out --budget",
        "--budget=0.5 --rates=0.5": "--rates and --budget: give one of them",
        "--ranking=over_layers --floor=0": "a layer may be emptied, raise --floor",
        "--norm_keep=0": "--norm_keep=0.0: must be above 0 and at most 1",
        "--finetune_rate=0": "--finetune_rate=0.0: must be above 0",
        "--longest=0.5": "--longest=0.5: must be 1 or more",
        "--methods=soft_12": "unknown method 'soft_12': did you mean soft_l",
        "--methods=inverted_soft_l2": "unknown method 'soft_l2'",
        "--methods=soft_l2 --ranking=over_layers": "share of each layer: leave out --ranking=over_",
        "--methods=soft_l2 --budget=0.5": "zeroes a share of each layer: leave out --budget",
        "--methods=soft_l2 --iterations=40 --look_every=8": "40 training steps: must be whole epo",
        "--penalty=scale": "unknown penalty 'scale': did you mean scales?",
        "--penalty=scales": "--penalty=scales with lenet5_29k: there is no batch norm",
        "--widths=6,6": "lenet5_29k takes 3 widths",
    },
    "filter_search": {
        "--weights_from=early": "--weights_from=early: must be init, or a number of epochs",
        "--weights_from=0": "--weights_from=0: must be init, or a number of epochs above 0",
        "--energies=loss": "unknown energies 'loss'",
        "--search_images=4000": "images=4000: the data set has 1000",
        "--rates=1": "outside (0, 1): there is nothing to search",
        "--budget=0.5": "--budget: with --granularity=units a search keeps a share of the",
        "--granularity=unit_fields": "so give --ranking=over_layers --multiple=1",
        "--budget=0.01 --granularity=unit_fields --ranking=over_layers": "the smallest selection",
        "--budget=1 --granularity=unit_fields --ranking=over_layers": "1.0 is outside (0, 1)",
        "--search=thesis --granularity=unit_fields --ranking=over_layers": "has no sawtooth",
        "--preset=thesi": "did you mean thesis",
    },
    "slimming": {
        "--model=lenet5": "--penalty=scales with lenet5: there is no batch norm",
        "--penalty=group_lasso": "--penalty=group_lasso: must be scales; --strengths=0",
        "--penalty_strength=0.1": "--penalty_strength: give --strengths",
        "--strengths=-1": "--strengths=-1.0: must be 0 or more",
        "--rates=1.5": "--rates=1.5: must be above 0 and at most 1",
        "--rates=0.7,0.7,0.5": "--rates: 3 for 2 passes: give one, or one for",
        "--rates=0.2": "--rates=0.04: ",
        "--widths=8,16": "lenet5 takes 3 widths",
        "--model=vgg11 --batch_norm": "vgg11 has no attribute batch_norm",
    },
    "orthogonality": {"--repair_rate=0": "--repair_rate=0.0: must be above 0"},
    "supermask": {
        "--ones=rewinds": "unknown ones 'rewinds': did you mean rewind?",
        "--zeros=frozen": "unknown zeros 'frozen'",
        "--criteria=smallest": "unknown criterion 'smallest'",
        "--levels=40": "which needs 1: fewer levels or a lower rate",
    },
    "energy_study": {
        "--train_steps=0": "--train_steps=0.0: must be 1 or more",
        "--train_steps=2.5": "must be whole numbers",
        "--train_steps=100000000": "--train_steps=100000000: 100000000 steps' images take",
        "--fields=1000000": "--fields=1000000: 1000000 masks of a seed take",
        "--held_out=1000": "--held_out=1000: there are only 1000 training",
        "--preset=mnist5": "did you mean mnist",
    },
    "annealed_training": {
        "--variants=heats": "did you mean heat?",
        "--variants=heat,heat": "--variants has heat twice",
        "--heat=0": "--heat=0.0: must be above 0",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0.001 --floor=10": "keeps 3 weights",
        "--budget=0.5": "too little for granet, give",
        "--held_out=1000": "--held_out=1000: there are 1000 images",
        "--preset=fashio": "did you mean fashion",
    },
    "sa_search": {
        "--chains=1000000": "--chains=1000000: 1000000 chains take",
    },
    "sa_frontier": {
        "--chains=1000000 --searches=rewired --widths=3000,1000": "1000000 chains of a seed take",
        "--searches=anealed_fields": "did you mean annealed_fields",
        "--budget=0.5 --searches=rewired": "for 1 phases of 1 chains and 3 training steps",
        "--budget=2 --searches=annealed_fields": "for 2 phases of 2 chains and 3 training steps",
        "--budget=much": "must be numbers",
        "--searches=polished_edge_popup --budget=1": "of which a gate takes 1: polishing needs",
        "--held_out=980": "--held_out=980: there are 1000 training images",
        "--density=1.5": "--density=1.5: must be above 0 and at most 1",
        "--density=1": "--density=1: there is nothing to search for",
        "--searches=granet --granet_from=2": "--granet_from=2.0: must be above 0 and at most 1",
        "--searches=granet --budget=0.01": "too little for granet, give",
        "--searches=cross_entropy_layers --held_out=980": "--held_out=980: there are 1000",
        "--searches=cross_entropy_layers --budget=1": "too little for 4 steps of 8 samples",
        "--searches=genetic --chains=1": "--chains=1: genetic takes 2 or more",
        "--race=0.5,0.2": "--race=0.5,0.2: must rise",
        "--race=2": "--race=2.0: must be above 0 and below 1",
        "--preset=quick --resume --out=EMPTY": "nothing to resume",  # its budget suffices
        "--tickets=some": "--tickets: the search cost of saved tickets is unknown",
    },
    "early_bird": {
        "--window=7": "window=7: must be 6 or less, one mask for",
        "--window=1": "--window=1: must be 2 or more",
        "--draw_at=6": "draw_at=6: must be from 1 to 5, before the end",
        "--draw_at=soon": "must be numbers",
        "--density=1.5": "--density=1.5: must be above 0 and at most 1",
        "--criterion=magnitud": "unknown criterion 'magnitud'",
        "--granularity=units --criterion=batch_norm": "fc1 has no batch norm",
        "--granularity=units --density=0.003": "keeps 1 weights, a floor of 1 needs 2",
        "--after=rewind": "unknown after 'rewind'",
        "--preset=vgg": "did you mean vgg16",
    },
    "sparse_execution": {
        "--models=lenet6": "unknown model 'lenet6': did you mean lenet5?",
        "--density=1.5": "--density=1.5: must be above 0 and at most 1",
        "--density=0.000001": "keeps no weight at all",
        "--batches=1000000000": "--batches, --train_batch: 1000000000: 1000000000 images take",
        "--batches=0": "--batches=0.0: must be 1 or more",
        "--tickets=x=EMPTY/*": "/*: there is no such folder",
    },
    "any_model": {
        "--structures=LSTMs": "unknown structure 'LSTMs': did you mean LSTM?",
        "--strangers=plain": "unknown structure 'plain'",
        "--share=1": "--share=1.0: must be above 0 and below 1",
        "--batch=0": "--batch=0: must be 1 or more",
    },
    "portability": {
        "--models=lenet6": "unknown model 'lenet6': did you mean lenet5?",
        "--density=0": "--density=0.0: must be above 0",
        "--units=1": "--units=1.0: must be above 0 and below 1",
        "--images=0": "--images=0: must be 1 or more",
    },
    "sign_flips": {
        "--rules=flip": "unknown rules 'flip': did you mean flips?",
        "--variants=noisy": "unknown variants 'noisy'",
        "--variants=plain --noise=2": "--noise: has no effect with --variants=plain, leave it out",
        "--variants=noise --alrao_most=1": "--alrao_most: has no effect with --variants=noise",
        "--alrao_least=1": "--alrao_least=1: must be at most --alrao_most=0.1",
        "--noise=0": "--noise=0.0: must be above 0",
        "--rates=0": "--rates=0.0: must be above 0",
        "--rates=0.1,0.1": "--rates has 0.1 twice",
        "--learning_rate=0.1": "--learning_rate: give --rates instead",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0.000001": "--density=1e-06 in --cuts=3: density 1e-06 keeps no weight at all",
        "--density=0.001 --floor=2": "keeps 3 weights, a floor of 2 needs 6",
        "--early=0.001": "--early=0.001: must be different steps within the training, which has 28",
        "--early=0.5,0.501": "--early=0.5,0.501: must be different steps",
        "--cuts=30": "cuts=30: must be from 1 to 4, the moves",
        "--move_every=3": "--move_every=3: must divide 4, the steps between",
        "--preset=conv": "did you mean conv4",
    },
    "learned_sparsity": {
        "--methods=l00": "unknown methods 'l00': ",
        "--methods=gradual,gradual": "--methods has gradual twice",
        "--methods=scales": "--methods=scales with lenet300_100: there is no batch norm",
        "--strengths=-1": "--strengths=-1.0: must be 0 or more",
        "--strengths=0.1,0.1": "--strengths has 0.1 twice",
        "--strengths=2 --methods=targeted_dropout": "--strengths=2: targeted_dropout takes at most",
        "--density=0.001 --methods=targeted_unit_dropout": "keeps no weight besides those of out",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0": "--density=0.0: must be above 0 and below 1",
        "--density=0.000001": "with lenet300_100: density 1e-06 keeps no weight at all",
        "--density=0.001 --methods=group_lasso": "one unit in each layer takes 795 weights, of 24",
        "--density=0.001 --floor=500": "density 0.001 keeps 24 weights, a floor of 500 needs",
        "--density=0.1 --control_density=0.1": "--control_density: has no effect with",
        "--control_density=2": "--control_density=2.0: must be above 0 and below 1",
        "--gate_rate=-1": "--gate_rate=-1.0: must be 0 or more",
        "--retrain_epochs=0 --retrain_rate=0.5": "has no effect with --retrain_epochs=0",
        "--penalty=group_lasso": "--penalty=group_lasso: name it in --methods instead",
        "--seeds=100000": "--seeds=100000: 100000 trainings take",
        "--preset=mnst": "did you mean mnist",
    },
    "neuron_fusion": {
        "--which=l3": "unknown which 'l3': ",
        "--how=merged": "unknown how 'merged': did you mean merge?",
        "--cuts=0": "--cuts=0: a share of 0 of the units can't be cut",
        "--cuts=1": "--cuts=1: a share of 1 of the units can't be cut",
        "--cuts=0.99": "--cuts=0.99: a cut of 0.99 leaves none of the",
        "--cuts=0.01": "--cuts=0.01: a cut of 0.01 removes no unit of fc1, fc2",
        "--counts=8": "--counts=8: 1 numbers for 2 layers: fc1, fc2",
        "--counts=8-0": "--counts=8-0: fc2 has 8 units, 1 must stay",
        "--counts=16-8": "--counts=16-8: no unit would be fused",
        "--counts=many": "--counts=many: must be whole numbers",
        "--counts=8-4 --cosines=0.9": "--counts and --cosines: give one of them",
        "--counts=8-4 --cuts=0.5": "--cuts: has no effect with --counts=8-4",
        "--cosines=2": "--cosines=2.0: must be above -1 and at most 1",
        "--data_images=4000": "--data_images=4000: the data set has 3500",
        "--before_density=0.000001": "--before_density=1e-06: density 1e-06 keeps no weight",
        "--retrain=statistics": "--retrain=statistics with lenet300_100: there is no batch norm",
        "--retrain=none --finetune_epochs=3 --before_density=1": "--finetune_epochs: has no effect",
        "--preset=fashon": "did you mean fashion",
    },
    "ticket_transfer": {
        "--datasets=mnst5k": "did you mean mnist5k",
        "--datasets=imagenette_sample": "--dataset=imagenette_sample: this experiment takes data",
        "--datasets=mnist5k,mnist5k:inverse": "did you mean inverted?",
        "--datasets=mnist5k,mnist5k": "--datasets has mnist5k twice",
        "--datasets=mnist5k,cifar10": "images of cifar10 are (32, 32, 3), those of mnist5k (28, 2",
        "--optimizers=adam,momentum": "--rates: 1 for the 2 of --optimizers: give one for each",
        "--rates=0": "--rates=0.0: must be above 0",
        "--seeds=1": "--seeds=1: the ticket of another initialisation takes 2 or more, or --noac",
        "--prune_output": "--prune_output: each data set has its own output layer, which is dense",
        "--rewind=none": "--rewind=none: must be weights, which are carried over",
        "--rewind_step=20": "rewind_step=20: must be in the training, which has 20 steps",
        "--levels=40": "mnist5k/adam: level 11 leaves 0 weights in fc2/kernel",
        "--learning_rate=0.1": "--learning_rate: has no effect with --rates=0.001",
        "--noacross --match_images=10": "--match_images: has no effect with --across=False",
        "--preset=cifar": "did you mean cifar10",
    },
    "strong_tickets": {
        "--coefficients= --epsilon=1e-9": "--epsilon=1e-09 is out of reach: pensia needs 94 coef",
        "--coefficients= --constructions=malach --epsilon=1e-4": "--constructions=malach with",
        "--coefficients=29": "--coefficients=29: pensia takes at most 28",
        "--coefficients=2.5": "--coefficients=2.5: must be whole numbers",
        "--coefficients=0": "--coefficients=0.0: must be 1 or more",
        "--epsilon=0": "--epsilon=0.0: must be above 0 and below 1",
        "--constructions=pensja": "did you mean pensia?",
        "--curve= --sample=10": "--sample: has no effect with --curve=",
        "--use_bias": "--model: lenet300_100 has biases: strong tickets are made of sums alone",
        "--model=lenet5 --widths=": "--model: lenet5 isn't made of dense layers alone",
    },
    "classification": {
        "--samples=0": "--samples=0: must be 1 or more",
        "--samples=1000000000": "--samples=1000000000: must be 1000000 or less",
        "--prior=mixture": "unknown prior 'mixture': did you mean scale_mixture?",
        "--prior_width=0": "--prior_width=0.0: must be above 0",
        "--prior=scale_mixture --prior_widths=1,0": "must be above 0",
        "--methods=bayes_by_backprop --prior=scale_mixture --prior_widths=1": "1 given, must be",
        "--methods=moped --deviation=0.1": "--deviation: has no effect with --methods=moped",
        "--methods=bayes_by_backprop --delta=0.1": "--delta: has no effect with --methods=bayes",
        "--delta=0": "--delta=0.0: must be above 0",
        "--dense_nets=EMPTY": "/run: there is no such folder",
        "--dense_nets=a --dense_store=b": "--dense_store: has no effect with --dense_nets=a",
        "--kl_weight=-1": "--kl_weight=-1.0: must be 0 or more",
        "--methods=mopd": "unknown methods 'mopd': did you mean moped?",
        "--sampling=locally": "unknown sampling 'locally': did you mean local?",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0.000001": "--density=1e-06: density 1e-06 keeps no weight at all",
        "--density= --floor=2": "--floor: has no effect with --density=",
        "--preset=mnist5k --models=alexnet": "alexnet needs",
        "--models=alexnet": "alexnet takes 5 widths, whole and at least 1, not (20, 10): the "
        "preset gives --widths=20,10; --widths= takes those as published",
        "--preset=mnist5k --models=lenet5,lenet6": "did you mean lenet5",
        "--models=lenet5 --model=lenet5": "--model: has no effect with --models=lenet5",
        "--datasets=mnst": "did you mean mnist",
        "--other_dataset=cifar10": "--other_dataset=cifar10: its images are (32, 32, 3), those of",
        "--other_dataset=mnist5k": "--other_dataset=mnist5k: the nets are trained on it",
        "--seeds=1000000": "--seeds=1000000: 1000000 trainings take",
        "--preset=mnst": "did you mean mnist",
    },
    "weight_agnostic": {
        "--population=1": "--population=1: must be 2 or more",
        "--side=9": "--side=9: digits has images of 8x8 pixels in 1 channels, give 8 or less",
        "--dataset=cifar10": "--dataset=cifar10: cifar10 has images of 32x32 pixels in 3 channels",
        "--images=1098": "--images=1098: there are only 1097 training images",
        "--eval_every=5": "--eval_every=5: must divide --generations=12",
        "--mutations=0.5,0.5": "--mutations: 2 probabilities are given, must be 4",
        "--mutations=0.5,0.5,0.5,0.5": "--mutations=0.5,0.5,0.5,0.5: must be prob",
        "--connections=10": "--connections=10: too few, the first graphs have up to 66",
        "--share=0": "--share=0.0: must be above 0 and at most 1",
        "--elite=1": "--elite=1.0: must be below 1",
        "--preset=digit": "did you mean digits",
    },
    "compression": {
        "--methods=obs": "unknown methods 'obs': did you mean obd?",
        "--levels=1": "--levels=1.0: must be 2 or more",
        "--levels=8.5": "--levels=8.5: must be a whole number",
        "--levels=3000": "density 0.1 keeps 2432 weights, fewer than shared values",
        "--levels=8,8": "--levels has 8.0 twice",
        "--levels= --symbols=range": "--symbols: has no effect with --levels=",
        "--positions=gaps": "unknown positions 'gaps': ",
        "--symbols=ans": "unknown symbols 'ans': ",
        "--quantiser=uniform": "unknown quantiser 'uniform': ",
        "--codebook=int8": "unknown codebook 'int8': ",
        "--density=1": "--density=1.0: must be above 0 and below 1",
        "--density=0.00001": "--density=1e-05: density 1e-05 keeps no weight at all",
        "--density=0.01 --floor=500": "density 0.01 keeps 243 weights, a floor of 500 needs",
        "--rounds=0": "--rounds=0: must be 1 or more",
        "--rounds=2 --methods=magnitude": "--rounds: has no effect with --methods=magnitude",
        "--retrain_epochs=0": "--retrain_epochs=0: the rounds of iterative_layer_obs need epochs",
        "--move_epochs=1": "granet at density 0.1",
        "--move_epochs=9 --methods=obd": "--move_epochs: has no effect with --methods=obd",
        "--alpha=2": "--alpha: has no effect with --methods=iterative_layer_obs,granet",
        "--execution=sparse --model=lenet5 --widths=": "must be dense layers alone",
        "--repeats=-1": "--repeats=-1: must be 0 or more",
        "--seeds=100000": "--seeds=100000: 100000 trainings take",
        "--preset=mnst": "did you mean mnist",
    },
    "linear_connectivity": {
        "--rewinds=60": "rewind_step=60: must be in the training",
        "--points=2": "--points=2: must be 3 or more",
        "--rewind=none": "rewind=none: must be weights, where trainings part",
    },
}
CASES = [(experiment, words) for experiment, cases in BAD.items() for words in cases]


@pytest.fixture(scope="module")
def answers(cache, tmp_path_factory):
    """What the experiments say of each bad command line, and their exit statuses."""
    empty = tmp_path_factory.mktemp("empty") / "run"
    asked = [
        [
            experiment,
            *([] if "preset" in words else ["--smoke"]),
            *words.replace("EMPTY", str(empty)).split(),
        ]
        for experiment, words in CASES
    ]
    said = dict(zip(CASES, commands.answers(asked, cache), strict=True))
    assert not empty.exists()
    return said


@pytest.mark.parametrize(("experiment", "words"), CASES)
def test_bad_input_ends_in_one_line_before_work_starts(experiment, words, answers):
    status, said = answers[experiment, words]
    assert status not in (0, None)
    assert len(said.strip().splitlines()) == 1, said
    assert BAD[experiment][words] in said


def settings_classes():
    """Every dataclass of the project that has options."""
    modules = [
        importlib.import_module(module.name)
        for package in (experiments, jaxtickets)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    kinds = {kind for kind in kinds if dataclasses.is_dataclass(kind)}
    return [k for k in kinds if any("bounds" in f.metadata for f in dataclasses.fields(k))]


def test_every_number_of_every_setting_has_a_least_and_a_most():
    kinds = settings_classes()
    assert len(kinds) >= 25
    for kind in kinds:
        settings.check(kind())  # defaults are within
        for field in dataclasses.fields(kind):
            default, bounds = field.default, settings.bounds_of(field)
            values = default if isinstance(default, tuple) else (default,)
            words = any(isinstance(value, str | bool) for value in values)
            if bounds is None:
                # an empty list that may hold numbers is named here by those that hold words
                assert words or (values == () and field.name in LISTS_OF_WORDS), (kind, field.name)
                continue
            assert not words
            low = bounds.least if bounds.above is None else bounds.above
            high = bounds.most if bounds.below is None else bounds.below
            assert math.isfinite(low) and high is not None, (kind, field.name)
            assert math.isfinite(high) or field.name in ENDLESS, (kind, field.name)
            assert bounds.fault(math.nan) and bounds.fault(-math.inf)


LISTS_OF_WORDS = (
    *("tickets", "checks", "models", "datasets", "retrained", "counts"),
    "dense_nets",
)
ENDLESS = ("checkpoint_seconds", "longest")
"""Of these infinity means something: no checkpoint before the end, no limit."""


def test_imports_leave_the_number_of_devices_open(cache):
    modules = sorted(
        path.parent.name for path in (commands.ROOT / "experiments").glob("*/__main__.py")
    )
    assert "benchmark" in modules
    code = "; ".join(
        [
            *(f"import experiments.{name}.__main__" for name in modules),
            "import jax",
            "from experiments.harness import setup",
            "setup.configure(3)",
            "print(len(jax.devices('cpu')))",
        ]
    )
    done = commands.run([sys.executable, "-c", code], cache)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_a_choice_that_may_be_empty_lists_names_only():
    with pytest.raises(UserError, match=r"^unknown colours 'x': known: jitter, lighting$"):
        settings.choose("colours", "x", ("", "jitter", "lighting"))
