#!/bin/sh
# The same for several clips at a time, by xargs: JOBS of them, 2 if that is not set.
#
#   JOBS=4 upscale-parallel.sh FOLDER OUTDIR [flags of 'keyscale upscale' ...]
#
# The cores are shared out among the jobs (OMP_NUM_THREADS). 'keyscale batch' loads the network once for many clips and
# is the faster way; this one needs nothing but a shell. xargs ends with 123 if a clip failed.
set -u

if [ $# -lt 2 ]; then
  echo "usage: $0 FOLDER OUTDIR [flags of 'keyscale upscale' ...]" >&2
  exit 2
fi
folder=${1%/} out=${2%/} jobs=${JOBS:-2}
shift 2
case $folder in -*) folder=./$folder ;; esac
case $out in -*) out=./$out ;; esac
mkdir -p "$out" || exit 4

cores=$(getconf _NPROCESSORS_ONLN)
: "${OMP_NUM_THREADS:=$((cores > jobs ? cores / jobs : 1))}"
export OMP_NUM_THREADS

# Names end with a zero byte, so that spaces, quotes and newlines in them mean nothing.
# xargs puts the video behind the flags; behind it, in turn, come its keyframes.
find "$folder" -maxdepth 1 -name '*.mp4' -print0 | sort -z |
  xargs -0 -r -n 1 -P "$jobs" sh -c '
    out=$1
    shift
    for video; do :; done
    keyframes=${video%.mp4}.json
    [ -f "$keyframes" ] || exit 0
    exec keyscale upscale -o "$out/${video##*/}" --update "$@" "$keyframes"
  ' sh "$out" "$@"
