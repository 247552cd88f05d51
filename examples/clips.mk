# Every video of a folder that has keyframes beside it (clip.mp4 with clip.json) as a target: clips/clip.mp4.
#
#   make -k -j2 -f clips.mk [SOURCE=folder] [CLIPS=folder] [FLAGS="flags of 'keyscale upscale'"]
#
# A clip is made again when its video or its keyframes are newer. With -k the others go on when one fails; the next run
# makes what is missing. Make cannot hold names with spaces apart: the scripts beside this file can.
#
# There is no .DELETE_ON_ERROR: keyscale gives a file its name once it is whole, and until then the old one stays.

SOURCE ?= .
CLIPS ?= clips
FLAGS ?=

ifneq ($(wildcard $(SOURCE)/*\ *.mp4),)
$(error $(SOURCE) has videos with spaces in their names, which make cannot hold apart)
endif

CAMERAS := $(wildcard $(SOURCE)/*.json)
VIDEOS := $(filter $(CAMERAS:.json=.mp4),$(wildcard $(SOURCE)/*.mp4))

quoted = '$(subst ','\'',$(1))'

.PHONY: all
all: $(patsubst $(SOURCE)/%,$(CLIPS)/%,$(VIDEOS))

# --update skips what was only touched, hence the touch: otherwise it would be older than its source for ever.
$(CLIPS)/%.mp4: $(SOURCE)/%.mp4 $(SOURCE)/%.json | $(CLIPS)
	keyscale upscale $(call quoted,$<) $(call quoted,$(word 2,$^)) -o $(call quoted,$@) --update $(FLAGS)
	@touch $(call quoted,$@)

$(CLIPS):
	mkdir -p $(call quoted,$@)
