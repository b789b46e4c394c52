export { basicSetup, EditorView } from "codemirror";
export { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
export { EditorState, Prec } from "@codemirror/state";
export { keymap } from "@codemirror/view";
export { PostgreSQL, sql } from "@codemirror/lang-sql";
export { setDiagnostics } from "@codemirror/lint";
export { tags } from "@lezer/highlight";
