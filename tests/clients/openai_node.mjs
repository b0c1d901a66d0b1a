// OpenAI's npm package against a running starter college: node openai_node.mjs URL FOLDER
// FOLDER is where its node_modules are, see install.py. Says what it has checked, a line each.
import { createRequire } from "node:module";
import process from "node:process";

const [url, folder] = process.argv.slice(2);
const { OpenAI } = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", timeout: 120_000 });
const MATH = "coe-smollm2-math:q4";
const messages = [{ role: "user", content: "What is two plus two?" }];

function require_(holds, what) {
  if (!holds) {
    console.log(`FAILED: ${what}`);
    process.exit(1);
  }
}

const checks = {
  async answers() {
    const answer = await client.chat.completions.create({ model: MATH, messages, max_tokens: 12 });
    require_(answer.choices[0].message.content, "a text");
    require_(answer.usage.completion_tokens <= 12, "usage");
  },
  async "streams what it would say whole"() {
    const wanted = { model: MATH, messages, max_tokens: 12, seed: 7 };
    const whole = await client.chat.completions.create(wanted);
    const stream = client.chat.completions.stream({ ...wanted, stream_options: { include_usage: true } });
    require_((await stream.finalContent()) === whole.choices[0].message.content, "streamed as whole");
    require_((await stream.totalUsage()).total_tokens > 0, "usage in the stream");
  },
  async "stops when it is told to"() {
    const stream = await client.chat.completions.create({ model: MATH, messages, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta?.content) break;
    require_(stream.controller.signal.aborted, "an aborted request");
  },
  async "keeps to a schema"() {
    const schema = {
      type: "object",
      properties: { city: { type: "string", maxLength: 30 } },
      required: ["city"],
      additionalProperties: false,
    };
    const answer = await client.chat.completions.create({
      model: "auto",
      messages: [{ role: "user", content: "Name a city." }],
      max_tokens: 60,
      response_format: { type: "json_schema", json_schema: { name: "place", schema, strict: true } },
    });
    require_(typeof JSON.parse(answer.choices[0].message.content).city === "string", "JSON of the schema");
  },
  async embeds() {
    const found = await client.embeddings.create({ model: "coe-supervisor-minilm", input: ["bake bread"] });
    require_(found.data[0].embedding.length === 384, "a vector");
  },
  async lists() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    require_(names.includes("auto") && names.includes(MATH), "auto and the specialists");
  },
  async refuses() {
    const error = await client.chat.completions.create({ model: "no-such", messages }).catch((caught) => caught);
    require_(error instanceof OpenAI.NotFoundError && error.code === "model_not_found", "a NotFoundError");
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(`ok: ${name}`);
}
