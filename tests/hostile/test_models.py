"""Damaged model directories: every stage refuses them in one sentence, and none samples from random weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssdfast import cli, models, threads

from .. import tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 269060552\n"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inputs")
    tiny.save_model(directory / "model")
    tiny.save_traces(directory / "traces", 4)
    (directory / "problems.jsonl").write_text(json.dumps({"id": "a", "question": "word3 word4", "answer": "7"}) + "\n")
    (directory / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    return directory


@pytest.fixture
def model(inputs, tmp_path):
    return shutil.copytree(inputs / "model", tmp_path / "model")


def command(stage, inputs, model, out):
    arguments = {
        "sample": [
            "--model", model, "--problems.sources", inputs / "problems.jsonl", "--max-new-tokens", 2,
            "--prompt.chat-template", inputs / "chat.jinja", "--prompt.instruction", "{question}",
        ],
        "train": ["--model", model, "--traces", inputs / "traces"],
        "probe": ["--baseline", inputs / "model", "--trained", model, "--traces", inputs / "traces"],
    }[stage]  # fmt: skip
    return [stage, "--out", str(out), *map(str, arguments)]


def mistake(capsys, arguments):
    capsys.readouterr()
    assert cli.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def text(name, content):
    def damage(model):
        (model / name).write_text(content)

    return damage


def binary(name, change):
    def damage(model):
        before = (model / name).read_bytes() if (model / name).exists() else b""
        (model / name).write_bytes(change(before))

    return damage


def edit(name, **values):
    """Change keys of a JSON file; None removes a key."""

    def damage(model):
        content = json.loads((model / name).read_text()) | values
        (model / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return damage


def weights(change):
    def damage(model):
        save_file(change(load_file(model / WEIGHTS)), model / WEIGHTS, metadata={"format": "pt"})

    return damage


def without(part):
    return weights(lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name})


def renamed(prefix):
    return weights(lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})


def added(**more):
    return weights(lambda tensors: tensors | {name.replace("__", "."): tensor for name, tensor in more.items()})


def removed(*names):
    def damage(model):
        for name in names:
            (model / name).unlink()

    return damage


def sharded(change):
    """The weights in two shards with an index, which `change` then damages."""

    def damage(model):
        models.transformers.LlamaForCausalLM.from_pretrained(model).save_pretrained(
            model / "new", max_shard_size="30KB"
        )
        (model / WEIGHTS).unlink()
        for file in (model / "new").iterdir():
            file.replace(model / file.name)
        change(model, sorted(model.glob("model-*.safetensors")))

    return damage


def not_a_number(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    return tensors


MISSING = r"model\.safetensors lacks the weight {} of a LlamaForCausalLM{}: save or copy the whole model again"
AGAIN = r": copy or download it again"
DAMAGES = {
    # weights that are missing or of another model
    "without the MLPs": (
        without("mlp"),
        MISSING.format(r"model\.layers\.0\.mlp\.down_proj\.weight", r" \(5 others.*\)"),
    ),
    "without the head": (without("lm_head"), MISSING.format(r"lm_head\.weight", "")),
    "without the embedding": (without("embed_tokens"), MISSING.format(r"model\.embed_tokens\.weight", "")),
    "without a norm": (without("model.norm"), MISSING.format(r"model\.norm\.weight", "")),
    "without a layer": (
        without("layers.1"),
        MISSING.format(r"model\.layers\.1\.\S+", r" \(8 others are missing too\)"),
    ),
    "one weight": (weights(lambda tensors: {"model.norm.weight": tensors["model.norm.weight"]}), "lacks the weight"),
    "compiled": (renamed("_orig_mod."), r"the names of 21 weights begin with '_orig_mod\.'.*: save the model again"),
    "data parallel": (renamed("module."), r"the names of 21 weights begin with 'module\.'"),
    "a wrapper": (renamed("policy.model_."), r"begin with 'policy\.model_\.'|lacks the weight"),
    "an unknown weight": (added(value_head=torch.zeros(3)), r"holds the weight value_head, which no LlamaForCausalLM"),
    "a bias": (
        added(**{"model__layers__0__mlp__up_proj__bias": torch.zeros(64)}),
        r"holds the weight model\.layers\.0\.mlp\.up_proj\.bias, which no",
    ),
    "more layers": (edit("config.json", num_hidden_layers=3), r"lacks the weight model\.layers\.2\."),
    "fewer layers": (
        edit("config.json", num_hidden_layers=1),
        r"holds the weight model\.layers\.1\..*8 others are unk",
    ),
    "another width": (
        edit("config.json", intermediate_size=60),
        r"has the shape \[32, 64\], and \[32, 60\] by the con",
    ),
    "another vocabulary": (
        edit("config.json", vocab_size=128),
        r"has the shape \[96, 32\], and \[128, 32\] by the con",
    ),
    "another hidden size": (edit("config.json", hidden_size=64), r"has the shape .* others differ too\)"),
    "another architecture": (
        edit("config.json", model_type="gpt2"),
        r"lacks the weight|has the shape|holds the weight",
    ),
    "not a number": (
        weights(not_a_number),
        r"the weight model\.layers\.1\.mlp\.up_proj\.weight has values that are not finite",
    ),
    # files of weights
    "weights: a pointer": (text(WEIGHTS, POINTER), r"model\.safetensors is a git-LFS pointer .*: run git lfs pull"),
    "weights: empty": (text(WEIGHTS, ""), r"model\.safetensors is empty" + AGAIN),
    "weights: half": (binary(WEIGHTS, lambda b: b[: len(b) // 2]), r"no complete safetensors file \(.*\)" + AGAIN),
    "weights: five bytes": (binary(WEIGHTS, lambda b: b[:5]), r"no complete safetensors file \(.*\)" + AGAIN),
    "weights: header alone": (binary(WEIGHTS, lambda b: b[:300]), r"no complete safetensors file \(.*\)" + AGAIN),
    "weights: longer": (binary(WEIGHTS, lambda b: b + b"tail"), r"no complete safetensors file \(.*\)" + AGAIN),
    "weights: a page": (text(WEIGHTS, "<html>404</html>"), r"no complete safetensors file \(.*\)" + AGAIN),
    "weights: none inside": (weights(lambda tensors: {}), r"model\.safetensors holds no weights" + AGAIN),
    "weights: gone": (removed(WEIGHTS), r"has no model\.safetensors; save the model again with save_pretrained"),
    "a shard is gone": (
        sharded(lambda model, shards: shards[-1].unlink()),
        r"index\.json names model-\S+, which is not in .*: copy or download that file",
    ),
    "a shard is a pointer": (sharded(lambda model, shards: shards[0].write_text(POINTER)), r"00001-of\S+ is a git-LFS"),
    "a shard is half": (
        sharded(lambda model, shards: shards[1].write_bytes(shards[1].read_bytes()[:-9])),
        r"model-00002-of\S+ is no complete safetensors file",
    ),
    "a shard twice": (
        sharded(lambda model, shards: shards[1].write_bytes(shards[0].read_bytes())),
        r"index\.json lacks the weight",
    ),
    "index: no JSON": (
        sharded(lambda model, shards: text(f"{WEIGHTS}.index.json", "{")(model)),
        r"index\.json is no JSON \(.*\)" + AGAIN,
    ),
    "index: no map": (
        sharded(lambda model, shards: text(f"{WEIGHTS}.index.json", "{}")(model)),
        r"index\.json has no weight_map from weights to files: restore",
    ),
    # config.json and generation_config.json
    "config: gone": (removed("config.json"), r"has no config\.json: name a directory that save_pretrained wrote"),
    "config: empty": (text("config.json", ""), r"config\.json is empty" + AGAIN),
    "config: no JSON": (text("config.json", "{'model_type': 'llama'}"), r"config\.json is no JSON \(.*\)" + AGAIN),
    "config: a list": (text("config.json", "[]"), r"config\.json holds a JSON list and not an object: restore"),
    "config: a pointer": (text("config.json", POINTER), r"config\.json is a git-LFS pointer .*: run git lfs pull"),
    "config: not UTF-8": (binary("config.json", lambda b: b"\xff\xfe" + b), r"config\.json is no JSON \(.*\)" + AGAIN),
    "config: no model_type": (edit("config.json", model_type=None), r"config\.json has no model_type.*: restore"),
    "config: unknown model_type": (edit("config.json", model_type="llamb"), r"config\.json cannot be read as .*llamb"),
    "config: text for a number": (edit("config.json", hidden_size="wide"), r"cannot be (read|loaded) as a model"),
    "config: no heads": (edit("config.json", num_attention_heads=0), r"cannot be (read|loaded) as a model"),
    "config: heads do not divide": (edit("config.json", num_attention_heads=5), r"model: |model.* \(|has the shape"),
    "config: an encoder": (edit("config.json", model_type="vit"), r"cannot be (read|loaded) as a model"),
    "generation: a list": (text("generation_config.json", "[1]"), r"generation_config\.json holds a JSON list and not"),
    "generation: no JSON": (text("generation_config.json", "{"), r"generation_config\.json is no JSON \(.*\)" + AGAIN),
    "generation: text as id": (
        edit("generation_config.json", eos_token_id="</s>"),
        r"generation_config\.json: eos_token_id must be a token id or a list of them, got '</s>'",
    ),
    # the tokenizer
    "tokenizer: gone": (removed("tokenizer.json", "tokenizer_config.json"), r"the tokenizer of .* cannot be loaded \("),
    "tokenizer: a pointer": (text("tokenizer.json", POINTER), r"tokenizer\.json is a git-LFS pointer"),
    "tokenizer: half": (binary("tokenizer.json", lambda b: b[: len(b) // 2]), r"tokenizer\.json is no JSON \(.*\)"),
    "tokenizer: an object": (text("tokenizer.json", "{}"), r"the tokenizer of .* cannot be loaded \(.*\): restore"),
    "tokenizer: a list": (text("tokenizer_config.json", "[]"), r"tokenizer_config\.json holds a JSON list"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_refused_by_sample(name, inputs, model, tmp_path, capsys):
    damage, sentence = DAMAGES[name]
    damage(model)
    line = mistake(capsys, command("sample", inputs, model, tmp_path / "out"))
    assert line.startswith("ssdfast: ")
    assert str(model) in line
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(line)
    assert not (tmp_path / "out" / "traces").exists()


@pytest.mark.parametrize("name", ["without the MLPs", "not a number"])  # found before the model is loaded, and then
def test_a_refusal_on_a_busy_machine_is_one_sentence_too(name, inputs, model, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "free_cores", lambda usable: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    assert cli.run(command("sample", inputs, model, tmp_path / "whole")) == 0
    assert "1 of 2 cores are busy" in capsys.readouterr().err
    DAMAGES[name][0](model)
    assert "cores" not in mistake(capsys, command("sample", inputs, model, tmp_path / "out"))


@pytest.mark.parametrize("stage", ["train", "probe"])
@pytest.mark.parametrize(
    "name", ["without the MLPs", "without the head", "compiled", "weights: a pointer", "another width"]
)
def test_a_damaged_model_is_refused_by_the_other_stages(name, stage, inputs, model, tmp_path, capsys):
    damage, sentence = DAMAGES[name]
    damage(model)
    line = mistake(capsys, command(stage, inputs, model, tmp_path / "out"))
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(line)


GGUFS = {
    "empty": (b"", r"is empty: copy or download it again"),
    "a pointer": (POINTER.encode(), r"is a git-LFS pointer"),
    "a page": (b"<html>404</html>", r"is no GGUF file \(it begins with b'<htm'\)"),
    "magic alone": (b"GGUF", r"cannot be read as a model's configuration \(.*\): restore the file"),
    "100 bytes": (b"GGUF\x03\x00\x00\x00" + b"\x07" * 92, r"cannot be read as a model's configuration \(.*\): restore"),
    "100 zeros": (b"GGUF" + b"\x00" * 96, r"cannot be read as a model's configuration \(.*\): restore the file"),
}


@pytest.mark.parametrize("name", GGUFS)
def test_a_damaged_gguf_file_is_refused(name, inputs, tmp_path, capsys):
    pytest.importorskip("gguf")
    content, sentence = GGUFS[name]
    (tmp_path / "small.gguf").write_bytes(content)
    line = mistake(capsys, command("sample", inputs, tmp_path / "small.gguf", tmp_path / "out"))
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(line)


HARMLESS = {
    "untouched": lambda model: None,
    "sharded": sharded(lambda model, shards: None),
    "old rotary buffers": added(**{"model__layers__0__self_attn__rotary_emb__inv_freq": torch.zeros(4)}),
    "another format beside it": lambda model: (model / "consolidated.safetensors").write_text(POINTER),
    "no generation_config.json": removed("generation_config.json"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_transformers_ignores_is_no_damage(name, model):
    HARMLESS[name](model)
    assert models.load(str(model), "float32").vocabulary == models.model_info(str(model)).vocabulary == tiny.VOCABULARY


def test_a_tied_head_is_not_missing(tmp_path):
    config = tiny.config()
    config.tie_word_embeddings = True
    models.transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    assert models.model_info(str(tmp_path)).parameters == sum(
        len(t.flatten()) for t in load_file(tmp_path / WEIGHTS).values()
    )
    models.load(str(tmp_path), "float32")
