"""The look of the report: light and dark, on screens of any width and on paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1c1f24; --soft: #5c6470;
  --line: #dde1e7; --good: #00724f; --bad: #b04a00; --bar: #0072b2; --plate: #202226; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1d2025; --ink: #e8eaee;
  --soft: #a3abb8; --line: #343941; --good: #3ecb9c; --bad: #ff9b52; --bar: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h3 { font-size: .8rem; margin: 1.25rem 0 .35rem; color: var(--soft); text-transform: uppercase;
  letter-spacing: .05em; }
p { margin: .25rem 0; } a { color: var(--bar); } .soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem;
  margin-top: 1.25rem; }
.badge { font-size: .85rem; font-weight: 600; white-space: nowrap; margin-left: .5rem; color: var(--good); }
.lost .badge { color: var(--bad); }
.columns { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 0 1.5rem; }
@media (max-width: 60rem) { .columns { grid-template-columns: minmax(0, 1fr); } }
figure { margin: .75rem 0 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; background: var(--plate); }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); gap: .2rem 1rem;
  margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
.number { text-align: right; white-space: nowrap; }
.score { display: grid; grid-template-columns: minmax(0, 8rem) minmax(0, 1fr) 4.5rem; gap: .75rem;
  align-items: center; }
.track { height: .55rem; border-radius: .3rem; background: var(--line); overflow: hidden; }
.fill { display: block; height: 100%; background: var(--bar); }
ul { margin: 0; padding-left: 1.1rem; } li { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); margin-top: 1.25rem; }
footer { margin-top: 1.5rem; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
@media print { :root { color-scheme: light; --page: #ffffff; --card: #ffffff; --ink: #000000;
  --soft: #444444; --line: #cccccc; --good: #00724f; --bad: #b04a00; --bar: #0072b2; }
  body { max-width: none; padding: 0; font-size: 11px; }
  .card { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: .75rem 0; }
  figure, table, dl, .score { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .columns { grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); }
  img { max-height: 40vh; } .fill, .track { print-color-adjust: exact; } }
"""
