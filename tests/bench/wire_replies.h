/* What a provider says, on each vendor's wire, with about 1 KB of reply: written after the vendors' references. */
#ifndef WIRE_REPLIES_H
#define WIRE_REPLIES_H

#define PROSE \
    "The quarter closed with revenue eight percent above plan, driven by renewals in the northern region. Costs held " \
    "steady while hiring slowed, and support times fell below four hours for the first time. Two risks remain: the new " \
    "billing system is late, and one large customer has asked for other terms. I suggest that the board approves the " \
    "budget as drafted, reviews the billing date in May, and lets sales settle the terms within the usual margin. "

/* OpenAI: https://platform.openai.com/docs/api-reference/chat/object and .../chat/streaming */
#define OPENAI_USAGE \
    "{\"prompt_tokens\":212,\"completion_tokens\":100,\"total_tokens\":312,\"prompt_tokens_details\":{\"cached_tokens\":0," \
    "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0," \
    "\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}"
#define OPENAI_WHOLE \
    "{\"id\":\"chatcmpl-Bq7Zk2vXw91RtYpLmN4cD\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":" \
    "\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" PROSE "\"," \
    "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":" OPENAI_USAGE "," \
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_4b1d3c22a9\"}"
#define OPENAI_CHUNK(choices, more) \
    "data: {\"id\":\"chatcmpl-Bq7Zk2vXw91RtYpLmN4cD\",\"object\":\"chat.completion.chunk\",\"created\":1790000000," \
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_4b1d3c22a9\"," \
    "\"choices\":[" choices "]" more "}\n\n"
#define OPENAI_CHOICE(delta, finish) "{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,\"finish_reason\":" finish "}"
#define OPENAI_FIRST \
    OPENAI_CHUNK(OPENAI_CHOICE("\"role\":\"assistant\",\"content\":\"\",\"refusal\":null", "null"), ",\"usage\":null")
#define OPENAI_NEXT OPENAI_CHUNK(OPENAI_CHOICE("\"content\":\" token\"", "null"), ",\"usage\":null")
#define OPENAI_LAST OPENAI_CHUNK(OPENAI_CHOICE("", "\"stop\""), ",\"usage\":null")
#define OPENAI_COUNTS OPENAI_CHUNK("", ",\"usage\":" OPENAI_USAGE)
#define OPENAI_DONE "data: [DONE]\n\n"

/* Anthropic: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming */
#define ANTHROPIC_WHOLE \
    "{\"id\":\"msg_01XbQ7vKm2pRtYwZ9cD4\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5-20250929\"," \
    "\"content\":[{\"type\":\"text\",\"text\":\"" PROSE "\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null," \
    "\"usage\":{\"input_tokens\":212,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":100," \
    "\"service_tier\":\"standard\"}}"
#define ANTHROPIC_FIRST \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01XbQ7vKm2pRtYwZ9cD4\",\"type\":" \
    "\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5-20250929\",\"content\":[],\"stop_reason\":null," \
    "\"stop_sequence\":null,\"usage\":{\"input_tokens\":212,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0," \
    "\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0," \
    "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n"
#define ANTHROPIC_NEXT \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\"," \
    "\"text\":\" token\"}}\n\n"
#define ANTHROPIC_LAST \
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":" \
    "\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":100}}\n\n" \
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

/* Gemini: https://ai.google.dev/api/generate-content (its stream separates events with CRLF CRLF) */
#define GEMINI_PIECE(text, finish) \
    "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"" text "\"}],\"role\":\"model\"}," finish "\"index\":0}]," \
    "\"usageMetadata\":{\"promptTokenCount\":212,\"candidatesTokenCount\":100,\"totalTokenCount\":312}," \
    "\"modelVersion\":\"gemini-2.5-flash\",\"responseId\":\"kZ3vaN7XLm2p1wTQ9\"}"
#define GEMINI_WHOLE GEMINI_PIECE(PROSE, "\"finishReason\":\"STOP\",")
#define GEMINI_NEXT "data: " GEMINI_PIECE(" token", "") "\r\n\r\n"
#define GEMINI_LAST "data: " GEMINI_PIECE("", "\"finishReason\":\"STOP\",") "\r\n\r\n"

#endif
