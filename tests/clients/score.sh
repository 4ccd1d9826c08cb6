#!/bin/sh
# A training program of the tests: prints its hyperparameter x as `score` and copies its channel into its model.
set -eu
[ "$1" = train ]
echo "score=$SM_HP_X"
cp "$SM_CHANNEL_TRAIN"/* "$SM_MODEL_DIR"/
