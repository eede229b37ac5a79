"""The numbers of the papers' tables a second time, from a list that was checked against the papers cell by cell.

They are laid out as the papers print them, and share nothing with published.csv.

W21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021). Cells are "accuracy ± half-width of the 95%
interval", in percent; a dash stands for a number that a table does not have. Columns are two or more spaces apart. In
Z21 all learners have conv4-32 except MAML-L, which is called maml with conv7-40 here: MAML with seven layers.
"""

# by paper, table and dataset; a column of a mixture of datasets begins with its domain
TABLES = {
    ("W21", "3", "mini-imagenet"): """
learner     backbone  statistics  5-way 1-shot  5-way 5-shot
maml        conv4-32  -           48.70 ± 1.84  63.11 ± 0.92
anil        conv4-32  -           48.0 ± 0.7    62.2 ± 0.5
r2d2        r2d2      -           51.2 ± 0.6    68.8 ± 0.1
tadam       resnet12  -           58.50 ± 0.30  76.70 ± 0.30
metaoptnet  resnet12  -           62.64 ± 0.61  78.63 ± 0.46
mtl         resnet12  -           59.84 ± 0.22  77.72 ± 0.09
""",
    ("W21", "3", "tiered-imagenet"): """
learner     backbone  statistics  5-way 1-shot  5-way 5-shot
maml        conv4-32  -           51.67 ± 1.81  70.30 ± 1.75
metaoptnet  resnet12  -           65.99 ± 0.72  81.56 ± 0.53
mtl         resnet12  -           67.11 ± 0.12  83.69 ± 0.02
""",
    ("W21", "3", "cifar-fs"): """
learner     backbone  statistics  5-way 1-shot  5-way 5-shot
maml        conv4-32  -           58.9 ± 1.9    71.5 ± 1.0
r2d2        r2d2      -           65.3 ± 0.2    79.4 ± 0.1
protonet    resnet12  -           72.2 ± 0.7    83.5 ± 0.5
metaoptnet  resnet12  -           72.6 ± 0.7    84.3 ± 0.5
mtl         resnet12  -           69.5 ± 0.3    84.1 ± 0.1
""",
    ("W21", "3", "fc100"): """
learner     backbone  statistics  5-way 1-shot  5-way 5-shot
tadam       resnet12  -           40.1 ± 0.4    56.1 ± 0.4
protonet    resnet12  -           37.5 ± 0.6    52.5 ± 0.6
metaoptnet  resnet12  -           41.1 ± 0.6    55.5 ± 0.6
mtl         resnet12  -           42.4 ± 0.2    57.7 ± 0.3
""",
    ("Z21", "2", "cifar-fs"): """
learner       backbone  statistics    5-way 1-shot  5-way 5-shot  10-way 1-shot  10-way 5-shot
matching-net  conv4-32  inductive     36.64 ± 1.13  42.68 ± 0.96  15.02 ± 1.05   32.53 ± 0.93
meta-lstm     conv4-32  inductive     41.93 ± 1.20  61.40 ± 1.15  31.40 ± 0.75   41.25 ± 0.66
reptile       conv4-32  inductive     51.26 ± 0.99  68.62 ± 0.98  35.73 ± 0.94   54.35 ± 0.91
hsml          conv4-32  inductive     46.72 ± 0.87  68.76 ± 0.76  33.89 ± 0.55   53.94 ± 0.49
mmaml         conv4-32  inductive     40.64 ± 0.50  49.64 ± 0.49  23.80 ± 0.28   37.19 ± 0.27
imaml         conv4-32  inductive     49.72 ± 0.39  60.83 ± 0.49  30.02 ± 0.36   47.13 ± 0.29
fomaml        conv4-32  inductive     47.03 ± 1.47  64.20 ± 1.38  34.65 ± 1.09   51.35 ± 1.16
maml          conv4-32  inductive     51.98 ± 0.87  68.91 ± 0.74  38.48 ± 0.55   55.24 ± 0.54
tsa-maml      conv4-32  inductive     53.07 ± 0.85  71.37 ± 0.74  39.77 ± 0.53   58.05 ± 0.56
reptile       conv4-32  transductive  54.03 ± 0.92  72.60 ± 0.83  38.41 ± 0.97   57.16 ± 0.87
hsml          conv4-32  transductive  54.71 ± 1.50  69.62 ± 1.01  38.49 ± 1.22   55.51 ± 0.68
mmaml         conv4-32  transductive  45.16 ± 0.58  58.56 ± 0.51  27.30 ± 0.25   41.26 ± 0.26
imaml         conv4-32  transductive  55.13 ± 0.38  64.44 ± 0.58  34.23 ± 0.33   49.76 ± 0.27
fomaml        conv4-32  transductive  49.30 ± 1.18  66.96 ± 1.27  37.83 ± 1.06   53.23 ± 1.12
maml          conv4-32  transductive  57.46 ± 0.90  72.75 ± 0.71  39.97 ± 0.56   56.21 ± 0.55
tsa-maml      conv4-32  transductive  58.21 ± 0.93  73.52 ± 0.72  42.18 ± 0.58   58.69 ± 0.56
""",
    ("Z21", "3", "tiered-imagenet"): """
learner       backbone  statistics    5-way 1-shot  5-way 5-shot  10-way 1-shot  10-way 5-shot
matching-net  conv4-32  inductive     34.95 ± 0.89  43.95 ± 0.85  22.46 ± 0.34   31.19 ± 0.30
meta-lstm     conv4-32  inductive     33.71 ± 0.76  46.56 ± 0.79  22.09 ± 0.43   35.65 ± 0.39
reptile       conv4-32  inductive     49.12 ± 0.43  65.99 ± 0.75  31.79 ± 0.28   47.82 ± 0.30
hsml          conv4-32  inductive     47.36 ± 0.84  66.16 ± 0.78  33.39 ± 0.57   51.53 ± 0.55
mmaml         conv4-32  inductive     44.82 ± 0.46  61.47 ± 0.49  30.42 ± 0.37   48.92 ± 0.29
fomaml        conv4-32  inductive     48.01 ± 1.74  64.07 ± 1.72  30.31 ± 1.12   46.54 ± 1.24
maml          conv4-32  inductive     48.50 ± 1.83  65.93 ± 1.78  32.41 ± 1.23   48.81 ± 1.32
tsa-maml      conv4-32  inductive     48.82 ± 0.88  67.82 ± 0.72  34.48 ± 0.56   52.26 ± 0.55
reptile       conv4-32  transductive  51.06 ± 0.45  66.30 ± 0.78  33.79 ± 0.29   51.27 ± 0.31
hsml          conv4-32  transductive  48.82 ± 0.86  66.74 ± 0.76  34.63 ± 0.55   51.47 ± 0.54
mmaml         conv4-32  transductive  48.52 ± 0.47  64.39 ± 0.47  33.69 ± 0.35   50.90 ± 0.29
fomaml        conv4-32  transductive  50.12 ± 1.82  67.43 ± 1.80  31.53 ± 1.08   49.99 ± 1.36
maml          conv4-32  transductive  50.48 ± 1.81  68.06 ± 1.75  34.25 ± 1.19   51.69 ± 1.33
tsa-maml      conv4-32  transductive  52.03 ± 0.86  68.97 ± 0.74  35.78 ± 0.58   52.50 ± 0.56
""",
    ("Z21", "1", "group-aircraft-bird-fungi"): """
learner   backbone  statistics    aircraft 5-way 5-shot  bird 5-way 5-shot  fungi 5-way 5-shot
reptile   conv4-32  transductive  60.46 ± 0.68           71.96 ± 0.79       51.71 ± 0.84
hsml      conv4-32  transductive  69.89 ± 0.90           68.99 ± 1.01       53.63 ± 1.03
mmaml     conv4-32  transductive  56.02 ± 0.63           68.33 ± 0.82       53.44 ± 0.76
fomaml    conv4-32  transductive  49.60 ± 0.98           69.53 ± 0.95       47.56 ± 0.83
maml      conv4-32  transductive  67.82 ± 0.65           70.55 ± 0.77       53.20 ± 0.82
tsa-maml  conv4-32  transductive  72.84 ± 0.63           74.80 ± 0.76       56.86 ± 0.87
""",
    ("Z21", "1", "group-car-bird-fungi"): """
learner   backbone  statistics    car 5-way 5-shot  bird 5-way 5-shot  fungi 5-way 5-shot
reptile   conv4-32  transductive  43.64 ± 0.64      69.63 ± 0.78       52.06 ± 0.85
hsml      conv4-32  transductive  48.19 ± 0.93      71.20 ± 0.97       53.48 ± 1.08
mmaml     conv4-32  transductive  34.97 ± 0.46      64.83 ± 0.80       53.33 ± 0.77
fomaml    conv4-32  transductive  34.20 ± 0.72      68.50 ± 0.78       46.66 ± 0.89
maml      conv4-32  transductive  47.67 ± 0.70      68.64 ± 0.82       53.43 ± 0.89
tsa-maml  conv4-32  transductive  50.01 ± 0.65      73.92 ± 0.80       56.03 ± 0.87
""",
    ("Z21", "text", "group-aircraft-bird-fungi"): """
learner  backbone  statistics    aircraft 5-way 5-shot  bird 5-way 5-shot  fungi 5-way 5-shot
maml     conv7-40  transductive  72.68                  69.73              54.18
""",
}
