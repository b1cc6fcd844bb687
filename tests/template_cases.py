# SPDX-License-Identifier: BSD-2-Clause
"""Chat templates built as those of well-known families are, and what transformers makes of them: `python tests/template_cases.py`,
with the extra `references` installed, writes it to tests/data/templates.json. The tests (test_template_families.py) read that file.

The templates are of our own wording: they have their families' constructs and control tokens, not their text.
"""

import json
from pathlib import Path

DATA = Path(__file__).parent/"data"/"templates.json"

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set about = messages[0]['content'] %}
{%- else %}{% set rest = messages %}{% set about = false %}{% endif %}
{%- for turn in rest %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must go user, assistant, user') }}{% endif %}
    {%- if loop.index0 == 0 and about != false %}{% set said = '<<SYS>>\\n' + about + '\\n<</SYS>>\\n\\n' + turn['content'] %}
    {%- else %}{% set said = turn['content'] %}{% endif %}
    {%- if turn['role'] == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}
    {%- elif turn['role'] == 'assistant' %}{{ ' ' + said.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""
LLAMA3 = """{{- bos_token }}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "1 Jan 2030" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set about = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set about = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Knowledge ends: some time ago\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- about }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one tool call at a time") }}{%- endif %}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}{%- set about = messages[0]["content"] %}{%- set turns = messages[1:] %}
{%- else %}{%- set turns = messages %}{%- endif %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for m in turns %}
    {%- if not (m.role == "tool" or m.tool_calls is defined) %}
        {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("roles must take turns") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == (turns|selectattr("role", "equalto", "user")|list|last)) %}{{- "[AVAILABLE_TOOLS]" }}{%- endif %}
        {%- if loop.last and about is defined %}{{- "[INST] " + about + "\\n\\n" + m["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + m["content"] + "[/INST]" }}{%- endif %}
    {%- elif m["role"] == "assistant" %}{{- " " + m["content"]|trim + eos_token }}
    {%- else %}{{- raise_exception("only user and assistant, please") }}{%- endif %}
{%- endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
CHATML = """{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nBe of help.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PHI3 = """{% for m in messages %}{% if m['role'] in ['system', 'user', 'assistant'] and m['content'] %}
{{- '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('There is no system role') }}{% endif %}
{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles take turns') }}{% endif %}
{%- if (m['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif %}
{{- '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
QWEN = """{%- if tools %}{{- '<|im_start|>system\\n' }}{{- "# Tools" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and m.role == "user" and m.content is string and not (m.content.startswith('<r>') and m.content.endswith('</r>')) %}
        {%- set ns.multi = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.content is string %}{%- set content = m.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (m.role == "user") or (m.role == "system" and not loop.first) %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif m.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last %}{{- '<|im_start|>' + m.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}{{- '<|im_start|>' + m.role + '\\n' + content }}{%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(is_first=false, about='', is_first_sp=true) %}
{%- for m in messages %}{%- if m['role'] == 'system' %}
{%- if ns.is_first_sp %}{% set ns.about = ns.about + m['content'] %}{% set ns.is_first_sp = false %}
{%- else %}{% set ns.about = ns.about + '\\n\\n' + m['content'] %}{%- endif %}{%- endif %}{%- endfor %}
{{- bos_token }}{{ ns.about }}
{%- for m in messages %}
{%- if m['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + m['content'] }}{%- endif %}
{%- if m['role'] == 'assistant' and m['content'] is not none %}{% set content = m['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<\uff5cAssistant\uff5c>' + content + eos_token }}{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\\n' }}{% endif %}"""
COMMAND = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set about = messages[0]['content'] %}
{%- else %}{% set turns = messages %}{% set about = 'You help.' %}{% endif %}
{%- macro turn(kind, text) %}{{ '<|START_OF_TURN_TOKEN|>' ~ kind ~ text.strip() ~ '<|END_OF_TURN_TOKEN|>' }}{% endmacro %}
{{- turn('<|SYSTEM_TOKEN|>', about) }}
{%- for m in turns %}{% if m['role'] == 'user' %}{{ turn('<|USER_TOKEN|>', m['content']) }}
{%- elif m['role'] == 'assistant' %}{% generation %}{{ turn('<|CHATBOT_TOKEN|>', m['content']) }}{% endgeneration %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""
PARTS = """{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}{% for part in m.content %}{% if part.type == 'image' %}<image>
{%- elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
CONSTRUCTS = """{%- for m in messages if m.role != 'system' %}{% if loop.index > 4 %}{% break %}{% endif %}
{%- set kind = {'user': '<|im_start|>', 'assistant': '<|im_end|>'}[m.role] %}{{ kind }}{{ loop.cycle('a', 'b') }}
{{- m.content | tojson }}|{{ [m.content, 1.5, none, true] | tojson(indent=2) }}|{{ {'b': m.content, 'a': 1} | tojson(sort_keys=true, separators=(',', ':')) }}
{{- m.content | tojson(ensure_ascii=true) }}|{{ (m.content ~ '<|im_end|>') | upper | lower }}{{ '%s<|im_start|>%d' | format(m.content, loop.index) }}
{{- '{}:{:>3}'.format(m.role, loop.length) }}{{ m.content | indent(2) | replace('e', '<|im_end|>') | trim }}{{ '<s>' if loop.first else '</s>' }}
{{- m.content.split() | join('<s>') }}{{ (m.content | list | reverse | list)[:3] | join }}{% continue %}never{% endfor %}
{%- if messages[0].role == 'system' %}{% filter title %}{{ messages[0].content }}<|im_end|>{% endfilter %}{% endif %}
{%- if documents is none and tools is none %}no tools{% endif %}{{ unk_token }}{{ pad_token }}{{ messages | length }}{{ strftime_now('%%') }}
{%- set x %}<s>{{ messages[-1].content | capitalize }}{% endset %}{{ x * 2 }}{{ range(3) | list }}{{ 7 // 2 }}{{ messages | map(attribute='role') | join('|') }}
{%- if add_generation_prompt is true %}<|im_start|>{% endif %}"""

S = ("<s>", "</s>")
HEADERS  = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>")
FAMILIES = {"llama 2": (LLAMA2, S), "llama 3": (LLAMA3, HEADERS), "mistral": (MISTRAL, (*S, "[INST]", "[/INST]", "[AVAILABLE_TOOLS]")),
    "zephyr": (ZEPHYR, S), "chatml": (CHATML, ("<|endoftext|>", "<|im_end|>", "<|im_start|>")),
    "phi 3": (PHI3, ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "gemma": (GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")),
    "qwen": (QWEN, ("<|endoftext|>", "<|im_end|>", "<|im_start|>")),
    "deepseek": (DEEPSEEK,
        ("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>")),
    "command": (COMMAND,
        ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>")),
    "parts": (PARTS, (*S, "<|im_start|>", "<|im_end|>")),
    "constructs": (CONSTRUCTS, (*S, "<|im_start|>", "<|im_end|>"))}

_user, _answer = (lambda c: dict(role="user", content=c)), (lambda c: dict(role="assistant", content=c))
_system = dict(role="system", content=" Speak \u00e9l\u00e9gantly, \"quote\" <b>. ")
CHATS   = {"one": [_user("Hello there!")], "system": [_system, _user("  Who\n\nare you? ")],
    "long": [_user("a <b>\u00e9</b> & 'c' \\ \"d\"\t\U0001F600"),
        _answer("<think>\nhm\n</think>\n\nAn answer. "), _user("{{ x }} {% if %} %s {0}"), _answer("\u65e5\u672c"),
        _user("last\u2028line")],
    "system, long": [_system, _user("One?"), _answer("1"), _user("Two?")], "twice": [_user("a"), _user("b")]}
CASES   = [(family, chat, generate) for family in FAMILIES for chat in CHATS for generate in (True, False)]


def main():
    """Write DATA with transformers."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers
    alphabet, out = bytes_alphabet(), {}
    for family, (source, control) in FAMILIES.items():
        t = tokenizers.Tokenizer(models.BPE(vocab={c: b for b, c in alphabet.items()}, merges=[]))
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        t.add_special_tokens(list(control))
        t = transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token=control[0], eos_token=control[1], chat_template=source)
        for _, chat, generate in [c for c in CASES if c[0] == family]:
            messages = CHATS[chat]
            if family == "parts":
                messages = [m | dict(content=[dict(type="text", text=m["content"])]) for m in messages]
            try:
                made = t.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)
                ids  = t.apply_chat_template(messages, add_generation_prompt=generate, return_dict=False)
                control = [[i, id - 256] for i, id in enumerate(ids) if id >= 256]
                out[f"{family}, {chat}, {generate}"] = dict(text=made, control=control, n=len(ids))
            except Exception as e:
                out[f"{family}, {chat}, {generate}"] = dict(error=str(e))
    made_with = {p.__name__: p.__version__ for p in (transformers, tokenizers)}
    DATA.write_text(json.dumps(dict(made_with=made_with, results=out), indent=0, ensure_ascii=True) + "\n")


def bytes_alphabet():
    """{byte: character} of GPT-2's alphabet."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in own)}


if __name__ == "__main__":
    main()
