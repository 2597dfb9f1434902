"""Templates: what a request names becomes messages; variables are checked, rendered as data, bounded."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from policies.base import ApiError
from policies.template import Template
from policies.template.config import TemplateConfig
from policies.template.render import MAX_RENDERED, Text
from proxy.config.load import ConfigError, load_text
from proxy.forward import effective
from tests.core.inline import inline
from tests.fakes.clients import async_openai_client
from tests.policies.build import ECHO, call, kit, target

ROOT = Path(__file__).resolve().parents[2]


def template(text="Say {{ what }}.", folder=".", **more):
    """Return the policy with one template ``t`` that reads ``what``."""
    settings = {"messages": [{"role": "user", "content": text}], "variables": {"what": {"type": "string"}}, **more}
    policy = Template(TemplateConfig.model_validate({"templates": {"t": settings}}), kit(folder=str(folder)))
    policy.name = "template"
    return policy


async def filled(policy, variables=None, **body):
    """Return a call through the policy."""
    made = call(
        template="t", messages=body.pop("messages", []), **({"variables": variables} if variables else {}), **body
    )
    await policy.on_request(made)
    return made


def said(made):
    return [(m["role"], m["content"]) for m in made.request.body["messages"]]


async def refused(policy, variables=None, **body):
    with pytest.raises(ApiError) as caught:
        await filled(policy, variables, **body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value


# --- rendering ------------------------------------------------------------------------------------------------


async def test_a_request_becomes_the_templates_messages():
    """`template` and `variables` are gone, the messages are there, and those sent along come after them."""
    made = await filled(template(), {"what": "hi"}, messages=[{"role": "user", "content": "and more"}])
    assert said(made) == [("user", "Say hi."), ("user", "and more")]
    assert not {"template", "variables"} & made.request.body.keys()
    assert made.request.changed
    assert made.log["template"] == "t"


async def test_a_request_without_a_template_is_left_alone():
    """Ordinary calls pass untouched."""
    made = call("hi")
    await template().on_request(made)
    assert said(made) == [("user", "hi")]
    assert not made.request.changed


HOSTILE = [
    "{{ 7 * 7 }}", "{% for x in [1] %}{{ x }}{% endfor %}", "{{ self }}", "{# gone #}", "{{ ''.__class__ }}",
    "{% raw %}", "${HOME}", "\\u007b\\u007b 1 }}", "}}{{ what }}",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_a_caller_sends_is_never_a_template(text):
    """Variables are data: whatever they look like, they arrive as they are."""
    made = await filled(template(), {"what": text})
    assert said(made) == [("user", f"Say {text}.")]


FORBIDDEN = {
    "{{ what.__class__ }}": "look into", "{{ what['__class__'] }}": "look into", "{{ what() }}": "call",
    "{{ what.upper() }}": "call", "{{ cycler('a') }}": "call", "{% import 'x' as y %}": "no use",
    "{% include 'x' %}": "no use", "{% extends 'x' %}": "no use", "{% macro m() %}{% endmacro %}": "no use",
    "{% set x = 1 %}": "no use", "{{ what * 9 }}": "no use", "{{ 9 ** 9 ** 9 }}": "no use", "{{ what % 2 }}": "no use",
    "{{ what | attr('x') }}": "no filter", "{{ what | map('upper') }}": "no filter", "{{ what | centre }}": "no filter",
    "{{ what | format(1) }}": "no filter", "{{ what | join(what) }}": "literal", "{{ what | indent(999999999) }}": "literal",
    "{{ what | sort(attribute='x') }}": "no argument", "{% if what is callable %}{% endif %}": "no test",
    "{% for a in what %}{% for b in what %}{% for c in what %}x{% endfor %}{% endfor %}{% endfor %}": "deeper",
    "{% for a in what recursive %}{% endfor %}": "deeper", "{{ what": "no template", "{% if what %}": "no template",
    "{{ what[0:2] }}": "look into", "{% call x() %}{% endcall %}": "no use", "{% with a=1 %}{% endwith %}": "no use",
    "{{ loop.index }}": "look into", "{{ self }}": "no `self`", "{% for i in what %}{{ loop }}{% endfor %}": "no `loop`",
    "{{ what | indent(65) }}": "at most 64", "{{ " + "(" * 300 + "what" + ")" * 300 + " }}": "too deep",
    "{{ what | _weighed }}": "no filter", "{% filter upper %}x{% endfilter %}": "no use", "{% do x %}": "no template",
}  # fmt: skip


@pytest.mark.parametrize("source", FORBIDDEN)
def test_what_a_prompt_has_no_need_of_is_a_load_error(source):
    """No attributes, calls, arithmetic, imports or definitions; the sentence says what is in the way."""
    with pytest.raises(ValueError) as caught:
        Text(source)
    assert FORBIDDEN[source] in str(caught.value)


ALLOWED = {
    "{{ name }}": "Ann", "{{ name | upper }}": "ANN", "{{ items | join(', ') }}": "b, a", "{{ missing | default('-') }}": "-",
    "{% if missing %}x{% else %}y{% endif %}": "y", "{% for i in items %}[{{ i }}]{% endfor %}": "[b][a]",
    "{{ 'yes' if flag else 'no' }}": "yes", "{{ flag }}": "true", "{{ items | length }}": "2", "{{ items | tojson }}": '["b","a"]',
    "{% if name is defined and missing is not defined %}ok{% endif %}": "ok", "{{ number }}": "1.5",
    "{% if 'b' in items %}in{% endif %}": "in", "{{ name ~ '!' }}": "Ann!", "{{ missing }}": "", "{{ items | sort | first }}": "a",
    "{% if number > 1 %}big{% endif %}": "big", "{{ name | truncate(4) }}": "Ann", "<{{ name }}> & 'q'": "<Ann> & 'q'",
}  # fmt: skip


@pytest.mark.parametrize("source", ALLOWED)
def test_what_a_prompt_needs_is_there(source):
    """Variables, conditions, loops and filters; no HTML escaping; booleans as JSON writes them."""
    values = {"name": "Ann", "items": ["b", "a"], "flag": True, "number": 1.5}
    assert Text(source).render(values, 1000) == ALLOWED[source]


async def test_the_output_is_bounded():
    """A loop over long items ends at the bound, with the contract's error."""
    policy = template(
        "{% for a in what %}{% for b in what %}{{ a }}{% endfor %}{% endfor %}",
        variables={"what": {"type": "list", "max_items": 1000, "max_length": 1000}},
    )
    error = await refused(policy, {"what": ["x" * 1000] * 1000})
    assert error.param == "variables"
    assert f"{MAX_RENDERED:,}" in error.message


ENDLESS = [
    "{% for a in what %}{% for b in what %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}",
    "{% for a in what %}{% if 0 in what %}{% endif %}{% endfor %}",
    "{% for a in what %}{% if what | sort | first == a %}{% endif %}{% endfor %}",
    "{% for a in what %}{% if what | tojson | length == 1 %}{% endif %}{% endfor %}",
    "{% for a in what | tojson %}{% for b in what | tojson %}{% endfor %}{% endfor %}",
]


@pytest.mark.parametrize("source", ENDLESS)
async def test_the_time_is_bounded(source):
    """Loops that say nothing come to no bound of the output: they end by their steps, before others notice."""
    policy = template(source, variables={"what": {"type": "list", "max_items": 10_000}})
    began = time.thread_time()
    error = await refused(policy, {"what": ["ab"] * 10_000})
    assert time.thread_time() - began < 2
    assert (error.status, error.param) == (400, "variables")
    assert "too long" in error.message


async def test_ten_thousand_items_are_no_matter():
    """The steps are enough for the longest list that can be allowed, told item by item."""
    policy = template(
        "{% for a in what %}{% if a != 'x' %}- {{ a | trim | upper }}\n{% endif %}{% endfor %}",
        variables={"what": {"type": "list", "max_items": 10_000}},
    )
    ((_, content),) = said(await filled(policy, {"what": ["ab"] * 10_000}))
    assert content.count("- AB") == 10_000


async def test_values_that_do_not_fit_the_template_are_the_callers_mistake():
    """A list of strings and numbers cannot be sorted: 400, not 503."""
    policy = template("{{ what | sort | join }}", variables={"what": {"type": "list"}})
    assert (await refused(policy, {"what": ["a", 1]})).param == "variables"


async def test_blank_messages_are_left_out():
    """A message that comes to nothing is no message; a prompt that comes to nothing is refused."""
    rows = [{"role": "system", "content": "{{ what }}"}, {"role": "user", "content": "hi"}]
    assert said(await filled(template(messages=rows))) == [("user", "hi")]
    assert (await refused(template("{{ what }}"), {"what": " \n"})).param == "variables"


# --- variables --------------------------------------------------------------------------------------------------

GOOD = [
    ({"type": "string", "max_length": 3}, "abc"), ({"type": "integer", "min": 1, "max": 5}, 5), ({"type": "number"}, 2),
    ({"type": "number", "min": -1.5}, -1.5), ({"type": "boolean"}, False), ({"type": "list", "max_items": 2}, ["a", 1]),
    ({"type": "string", "enum": ["a", "b"]}, "b"), ("integer", 7), ({"type": "integer", "enum": [1, 2]}, 2),
]  # fmt: skip
BAD = [
    ({"type": "string", "max_length": 3}, "abcd"), ({"type": "string"}, 3), ({"type": "string"}, ["a"]),
    ({"type": "integer"}, 1.0), ({"type": "integer"}, True), ({"type": "integer"}, "1"), ({"type": "integer", "min": 1}, 0),
    ({"type": "integer", "max": 5}, 6), ({"type": "number"}, "x"), ({"type": "number"}, True), ({"type": "boolean"}, 1),
    ({"type": "boolean"}, "true"), ({"type": "list", "max_items": 1}, ["a", "b"]), ({"type": "list"}, ["a", None]),
    ({"type": "list"}, [["a"]]), ({"type": "list"}, {"a": 1}), ({"type": "list", "max_length": 1}, ["ab"]),
    ({"type": "string", "enum": ["a"]}, "b"), ({"type": "list"}, "ab"), ({"type": "string"}, {"a": "b"}),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "value"), GOOD)
async def test_values_within_their_limits_are_taken(settings, value):
    """Each type takes its own, at its very limits."""
    await filled(template("{{ what }} .", variables={"what": settings}), {"what": value})


@pytest.mark.parametrize(("settings", "value"), BAD)
async def test_values_beyond_their_limits_are_refused(settings, value):
    """Another type, or one beyond a limit: 400 with the variable's name as param."""
    error = await refused(template("{{ what }} .", variables={"what": settings}), {"what": value})
    assert error.param == "variables.what"


async def test_required_optional_and_default():
    """Required ones must be given (null is not given); optional ones come to their default or to nothing."""
    needs = template(variables={"what": {"required": True}})
    assert (await refused(needs)).param == "variables.what"
    assert (await refused(needs, {"what": None})).param == "variables.what"
    assert said(await filled(template(variables={"what": {"default": "this"}}))) == [("user", "Say this.")]
    assert said(await filled(template())) == [("user", "Say .")]


async def test_names_that_lead_nowhere():
    """Unknown templates and variables are refused with their name, and what was probably meant."""
    error = await refused(template(), {"wat": "x"})
    assert (error.param, "did you mean `what`?" in error.message) == ("variables.wat", True)
    with pytest.raises(ApiError) as caught:
        await template().on_request(call(template="tt", messages=[]))
    assert (caught.value.param, "did you mean `t`?" in caught.value.message) == ("template", True)
    with pytest.raises(ApiError) as caught:
        await template().on_request(call(variables={"what": "x"}))
    assert caught.value.param == "template"
    with pytest.raises(ApiError) as caught:
        await template().on_request(call(template="t", endpoint="embeddings"))
    assert caught.value.param == "template"


# --- parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "own", "team", "sent"),
    [
        ({}, {"temperature": 0.7}, {"temperature": 0.1}, {"temperature": 0.7}),
        ({"temperature": 1.5}, {"temperature": 0.7}, {}, {"temperature": 1.5}),
        ({"temperature": None}, {"temperature": 0.7}, {}, {"temperature": 0.7}),
        ({}, {"max_tokens": 60}, {"max_completion_tokens": 9}, {"max_tokens": 60}),
        ({}, {"max_completion_tokens": 60}, {"max_tokens": 9}, {"max_tokens": 60}),
        ({"max_completion_tokens": 5}, {"max_tokens": 60}, {"max_tokens": 9}, {"max_completion_tokens": 5}),
        ({"max_tokens": 5}, {"max_completion_tokens": 60}, {}, {"max_tokens": 5}),
        ({}, {"stop": ["\n"]}, {"top_p": 0.5}, {"stop": ["\n"], "top_p": 0.5}),
    ],
)
async def test_the_callers_parameters_go_before_the_templates_and_those_before_the_teams(client, own, team, sent):
    """client > template > team; a bound on the answer is one parameter under either of its names."""
    policy = template(parameters=own)
    made = call(template="t", messages=[], **client)
    made.notes["parameters"] = team
    await policy.on_request(made)
    body = effective(made, target()).body
    assert {name: body[name] for name in body if name not in ("model", "messages") and body[name] is not None} == sent
    assert effective(made, target()).ours == frozenset(sent) - {n for n, v in client.items() if v is not None}


# --- at load --------------------------------------------------------------------------------------------------------


def problems(settings, folder="."):
    """Return what is said about a template."""
    policies = json.dumps([{"template": {"templates": {"t": settings}}}])
    with pytest.raises(ConfigError) as caught:
        load_text(f"{ECHO}policies: {policies}\n", {}, str(folder))
    return [str(problem) for problem in caught.value.problems]


WRONG = {
    "declare": {"messages": [{"role": "user", "content": "{{ wat }}"}], "variables": {"what": "string"}},
    "needs `messages`": {"variables": {}},
    "look into": {"messages": [{"role": "user", "content": "{{ what.x }}"}], "variables": {"what": "string"}},
    "`content` or `file`": {"messages": [{"role": "user"}]},
    "leaves no room": {"messages": [{"role": "user", "content": "x"}], "post": {"max_chars": 3}},
    "`min` is above": {"messages": [{"role": "user", "content": "x"}], "variables": {"n": {"type": "integer", "min": 2, "max": 1}}},
    "are for numbers": {"messages": [{"role": "user", "content": "x"}], "variables": {"n": {"min": 2}}},
    "`default` does not fit": {"messages": [{"role": "user", "content": "x"}], "variables": {"n": {"type": "integer", "default": "x"}}},
    "needs no default": {"messages": [{"role": "user", "content": "x"}], "variables": {"n": {"required": True, "default": "x"}}},
    "take the other keys out": {"file": "x.yml", "messages": [{"role": "user", "content": "x"}]},
    "unknown key": {"messages": [{"role": "user", "content": "x"}], "parameters": {"temprature": 1}},
    "this must be": {"messages": [{"role": "tool", "content": "x"}]},
}  # fmt: skip


@pytest.mark.parametrize("part", WRONG)
def test_a_template_that_cannot_work_does_not_load(part):
    """The mistake is named with its place, before anything is served."""
    found = problems(WRONG[part])
    assert any(part in problem and "policies[0].template.templates.t" in problem for problem in found), found


def test_unused_variables_are_worth_a_look():
    """A variable that no message reads is probably a mistake; it loads all the same."""
    policy = template("nothing")
    assert policy.warnings() == ["the template `t` never uses `what`"]


async def test_templates_in_files(tmp_path):
    """A message's text, or a whole template, comes from a file beside llm.yml; its mistakes are named with it."""
    (tmp_path / "text.txt").write_text("Say {{ what }}!")
    policy = template(folder=tmp_path, messages=[{"role": "system", "file": "text.txt"}])
    assert said(await filled(policy, {"what": "it"})) == [("system", "Say it!")]
    (tmp_path / "t.yml").write_text(
        "messages: [{role: user, file: text.txt}]\nvariables: {what: {type: string, required: true}}\npost: {strip: true}\n"
    )
    config = TemplateConfig.model_validate({"templates": {"t": {"file": "t.yml"}}})
    whole = Template(config, kit(folder=str(tmp_path)))
    assert said(await filled(whole, {"what": "it"})) == [("user", "Say it!")]
    before = whole.fingerprint()
    (tmp_path / "text.txt").write_text("Say {{ what }}?")
    assert Template(config, kit(folder=str(tmp_path))).fingerprint() != before
    for broken in ("{{ wat }}", "{{ what.x }}"):
        (tmp_path / "text.txt").write_text(broken)
        with pytest.raises(ValueError, match=r"text\.txt"):
            Template(config, kit(folder=str(tmp_path)))
    (tmp_path / "t.yml").write_text("messages: []\nvariabels: {}\n")
    with pytest.raises(ValueError, match=r"t\.yml:2: variabels: unknown key; did you mean `variables`"):
        Template(config, kit(folder=str(tmp_path)))
    with pytest.raises(ValueError, match="cannot be read"):
        template(folder=tmp_path, messages=[{"role": "user", "file": "none.txt"}])


# --- through the sidecar ----------------------------------------------------------------------------------------------


def example():
    """Return llm.yml's own example, switched on."""
    lines = (ROOT / "llm.yml").read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("  #- template:"))
    end = next(i for i in range(begin, len(lines)) if lines[i].startswith("  # "))
    return "policies:\n" + "\n".join(re.sub(r"^( *)#", r"\1", line) for line in lines[begin:end]) + "\n"


def epic_prompt(description, category=None, examples=()):
    """Return the prompt of the design document's EpicTitlePromptBuilder."""
    segments = [
        "You are a technical product manager helping to organize work items. "
        "Generate a concise and specific epic title based on the provided description.",
        f"Description:\n{description}",
        *([f"Category: {category}"] if category else []),
        *(["Example Titles:\n" + "\n".join(f"- {example}" for example in examples)] if examples else []),
        "The title should be:\n- Clear and specific\n- Under 100 characters\n"
        "- Start with a verb in present tense\n- Focus on the outcome or value",
    ]
    return "\n\n".join(segments)


def test_the_examples_prompt_is_the_design_documents():
    """llm.yml's `epic_title` says what the design document's builder says, with and without the optional parts."""
    config = load_text(ECHO + example(), {}, str(ROOT)).policies[0].config
    messages = config.templates["epic_title"].messages
    for values in (
        {"description": "Logins break."}, {"description": "A\nB", "category": "Security"},
        {"description": "x", "examples": ["Add one", "Fix two"]},
        {"description": "x", "category": "c", "examples": ["Add one"]},
    ):  # fmt: skip
        texts = [Text(message.content).render(values, 10_000) for message in messages]
        assert "\n\n".join(texts) == epic_prompt(**values)


@pytest.mark.parametrize("stream", [False, True])
async def test_any_openai_client_can_use_it(stream):
    """`extra_body` is enough; the title comes back stripped and cut to 97 characters and three dots."""
    async with inline(example()) as side:
        async with async_openai_client(f"{side.client.base_url}/v1") as client:
            # The echo answers with the prompt's last message, which is longer than a title may be.
            extra = {"template": "epic_title", "variables": {"description": "We cannot log in with a second factor."}}
            answer = await client.chat.completions.create(model="m", messages=[], extra_body=extra, stream=stream)
            if stream:
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
            else:
                text = answer.choices[0].message.content
        assert len(text) == 100
        assert text == epic_prompt("We cannot log in with a second factor.").split("\n\n", 1)[1][:97] + "..."
        (line,) = await side.lines()
        assert line["template"] == "epic_title"


async def test_what_goes_upstream_is_the_prompt_and_the_parameters():
    """The dry run shows the whole request: messages, default parameters, nothing of the template's own fields."""
    from proxy.dryrun import dry_run
    from tests.policies.build import runtime_of

    runtime = await runtime_of(example(), str(ROOT))
    found = await dry_run(
        runtime, {"model": "m", "template": "epic_title", "variables": {"description": "D"}, "temperature": 1}
    )
    body = found["upstream"]["body"]
    assert {name: body[name] for name in ("temperature", "max_tokens", "stop")} == {
        "temperature": 1,
        "max_tokens": 60,
        "stop": ["\n"],
    }
    assert not {"template", "variables"} & body.keys()
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    await runtime.aclose()
    await runtime.store.aclose()


@pytest.mark.parametrize("policies", ["", "policies: [{rate_limit: {}}]\n", "SHADOW"])
async def test_without_the_policy_a_template_is_refused(policies):
    """Never silently ignored: sent on, it would be a request without its prompt."""
    if policies == "SHADOW":
        policies = example().replace("template:\n", "template:\n      enforce: false\n", 1)
    async with inline(policies) as side:
        for body in ({"template": "epic_title"}, {"template": "x", "messages": [{"role": "user", "content": "hi"}]}):
            response = await side.client.post("/v1/chat/completions", json={"model": "m", **body})
            assert (response.status_code, response.json()["error"]["param"]) == (400, "template")
        response = await side.client.post("/v1/chat/completions", json={"model": "m", "template": None})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")
        assert (await side.chat("hi")).status_code == 200


async def test_the_hold_follows_the_templates_bound():
    """What a template sets counts in the hold: `max_tokens` and `n`, as they go upstream."""
    from policies._holds import Holds

    holds = Holds(kit())
    for own, hold in (({"max_tokens": 60}, 60), ({"max_completion_tokens": 9000, "n": 2}, 18_000), ({}, 4096)):
        made = await filled(template(parameters=own))
        assert holds.completion(made) == hold
    assert holds.completion(await filled(template(parameters={"max_tokens": 60}), max_tokens=5)) == 5
