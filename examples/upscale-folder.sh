#!/bin/sh
# Upscales the videos of a folder that have keyframes beside them (clip.mp4 with clip.json), one after another.
#
#   upscale-folder.sh FOLDER OUTDIR [flags of 'keyscale upscale' ...]
#
# Run it again for what failed or is new: results that are there and came of the same source, keyframes and flags are
# skipped. A clip that fails does not stop the others; the exit code is 1 if any did.
set -u

if [ $# -lt 2 ]; then
  echo "usage: $0 FOLDER OUTDIR [flags of 'keyscale upscale' ...]" >&2
  exit 2
fi
folder=${1%/} out=${2%/}
shift 2
# A name that begins with a dash would be taken for a flag.
case $folder in -*) folder=./$folder ;; esac
case $out in -*) out=./$out ;; esac
mkdir -p "$out" || exit 4

failed=0
for video in "$folder"/*.mp4; do
  keyframes=${video%.mp4}.json
  [ -f "$keyframes" ] || continue
  keyscale upscale "$video" "$keyframes" -o "$out/${video##*/}" --update "$@"
  code=$?
  case $code in
    0) ;;
    130 | 143) exit $code ;; # interrupted: the rest is not wanted either
    *) failed=$((failed + 1)) ;;
  esac
done

[ $failed -eq 0 ] || { echo "$failed clip(s) failed" >&2; exit 1; }
