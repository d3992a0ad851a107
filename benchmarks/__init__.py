"""Side-by-side measurements of sphemb and of what else one could write or install.

``python -m benchmarks`` measures and reports; ``README.md`` here has the last table.

* ``_cases``: what is computed, and on which points
* ``_peers``: who computes it; one file for each library
* ``_measure``, ``_resident``, ``_agreement``: time, memory, error
* ``_machine``, ``_report``, ``_figure``: the frame of the numbers, and their tables
* ``_run``: all of it, case by case

``python -m benchmarks.baselines`` scores what needs no learning beside a trained run:

* ``_baselines``: segments, nuclei and edges by scikit-image

``python -m benchmarks.figures`` draws figures of the papers:

* ``_figure_parts``: what they show

``python -m benchmarks.claims`` tests a claim of the papers, or reports all:

* ``_claims_points``: claims about points
* ``_claims_images``, ``_claims_boundaries``: claims about trained networks
* ``_claims_training``, ``_claims_photographs``, ``_claims_picie``: about trainings
* ``_claims_runs``: their runs, each made and scored once
* ``_claims_records``: effects, intervals, verdicts; table and figure

``python -m benchmarks.edges`` writes the maps of edges; ``benchmarks.throughput``
counts images a second; ``benchmarks.regions`` prints AP^r beside the paper's Table 2;
``benchmarks.roundings`` compares roundings of one run's embeddings;
``benchmarks.instances_or_classes`` trains one network for both;
``benchmarks.few_images`` trains on few images, from scratch and from a shipped network;
``benchmarks.gallery`` draws the worst, middle and best images of a run by score;
``benchmarks.objects`` and ``benchmarks/objects_peers.py`` set a run beside StarDist and
a U-Net.
``_folders`` writes the folders of images and masks that some of them train on.
``benchmarks.shipped`` writes the networks that come with the package,
``benchmarks.notebooks`` the notebooks of the tutorials.
"""
