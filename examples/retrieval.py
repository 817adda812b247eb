"""Find the videos most like one, by the features of a model: nearest neighbours by cosine.

    python retrieval.py MODEL VIDEOS QUERY --index features.safetensors

VIDEOS is a folder of videos, or of folders of them; their features are computed once and kept in the index.
"""

import argparse
from pathlib import Path

import numpy as np

import timesformer
from timesformer.evaluation.features import Features, embed, video_features
from timesformer.video.datasets import read_unlabelled
from timesformer.video.items import VideoItem, VideoList


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("videos", type=Path)
    parser.add_argument("query", type=Path, help="the video to find others like")
    parser.add_argument("--index", type=Path, required=True, help="file of features, written where there is none")
    parser.add_argument("--top", type=int, default=5)
    args = parser.parse_args()

    classifier = timesformer.VideoClassifier.from_pretrained(args.model)
    model, preprocessing = classifier.model, classifier.preprocessing
    if args.index.exists():
        index = Features.load(args.index)
    else:
        index, unread = embed(model, read_unlabelled(args.videos), preprocessing, args.index, workers=2)
        for video in unread:
            print(f"left out: {video.reason}")
    query = VideoList((VideoItem(args.query, ()),), (), False, args.query)
    asked, unread = video_features(model, query, preprocessing, workers=0)
    if unread:
        raise SystemExit(unread[0].reason)

    # For millions of videos, give these unit vectors to a library for approximate search.
    known = index.values / np.linalg.norm(index.values, axis=1, keepdims=True)
    similar = known @ (asked.values[0] / np.linalg.norm(asked.values[0]))
    for place in np.argsort(-similar)[: args.top]:
        print(f"{similar[place]:6.3f}  {index.paths[place]}")


if __name__ == "__main__":  # processes that decode may import this file again
    main()
