"""The page's style sheet. Colours are in `LIGHT` and `DARK`, so that their contrast can be computed; paper is light."""

from __future__ import annotations

_RAMP = ("#fcefa9", "#fbcf4d", "#f7a01d", "#e8663a", "#c73d58", "#92286d", "#5a136e", "#260d45")

LIGHT = {
    "ground": "#ffffff",
    "raised": "#f6f7f9",
    "text": "#1b1f24",
    "soft": "#57606a",
    "rule": "#d8dde3",
    "same": "#e9edf1",
    "edge": "#ffffff",
    "b": "#0b62a8",
    "second": "#b4470e",
    "noise": "#6e7681",
    "good": "#1a6b3c",
    "bad": "#b3261e",
} | {f"cell-{number}": colour for number, colour in enumerate(_RAMP)}

DARK = {
    "ground": "#14171b",
    "raised": "#1d2127",
    "text": "#e6e9ed",
    "soft": "#a3acb7",
    "rule": "#343b44",
    "same": "#262c33",
    "edge": "#14171b",
    "b": "#6cb6ff",
    "second": "#f0a35e",
    "noise": "#8f99a5",
    "good": "#6fdd9b",
    "bad": "#ff9a91",
} | {
    f"cell-{number}": colour
    for number, colour in enumerate(
        ("#3d1765", "#641a80", "#932b80", "#c73d58", "#e8663a", "#f7a01d", "#fbcf4d", "#fdf5c0")
    )
}


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_CELLS = "".join(f".cell-{number}{{fill:var(--cell-{number})}}" for number in range(8))

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--text);
  font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:66rem;margin:0 auto;padding:2.5rem 1.25rem 3rem}
header{margin-bottom:2rem}
.kind{margin:0 0 .5rem;color:var(--soft);font-size:.875rem}
h1{margin:0;font-size:clamp(1.25rem,.95rem + 1.4vw,1.75rem);line-height:1.3;font-weight:650;text-wrap:balance}
h2{margin:0 0 .25rem;font-size:1.125rem;line-height:1.4;font-weight:650}
section{margin-top:2.75rem}
p{margin:.25rem 0 1rem;max-width:46rem}
.small,figcaption,.axis,.legend{font-size:.8125rem;color:var(--soft)}
.lead{color:var(--soft)}
code{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
a{color:var(--b)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.25rem,1fr));gap:.75rem;margin:1.75rem 0 0;padding:0}
.tiles div{background:var(--raised);border-radius:.5rem;padding:.75rem .875rem}
.tiles dt{color:var(--soft);font-size:.8125rem;line-height:1.35}
.tiles dd{margin:.125rem 0 0;font-size:1.25rem;font-weight:600;line-height:1.3}
.tiles small{display:block;color:var(--soft);font-size:.8125rem;font-weight:400}
.verdict{display:flex;flex-wrap:wrap;gap:.25rem .625rem;align-items:baseline;margin:1.25rem 0 0;padding:.625rem .875rem;
  border-left:.25rem solid var(--rule);background:var(--raised);border-radius:.25rem;max-width:none}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.verdict.good b{color:var(--good)}.verdict.bad b{color:var(--bad)}
.scroll{overflow-x:auto;margin:.75rem 0 1rem;
  background:linear-gradient(to right,var(--ground) 40%,transparent) left/2.5rem 100% no-repeat local,
  linear-gradient(to left,var(--ground) 40%,transparent) right/2.5rem 100% no-repeat local,
  linear-gradient(to right,var(--rule),transparent) left/.75rem 100% no-repeat scroll,
  linear-gradient(to left,var(--rule),transparent) right/.75rem 100% no-repeat scroll}
.scroll:focus-visible{outline:2px solid var(--b);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;line-height:1.4;min-width:100%}
th,td{padding:.375rem .75rem;text-align:right;white-space:nowrap;vertical-align:top;font-weight:400}
th:first-child,td:first-child{padding-left:0}th:last-child,td:last-child{padding-right:0}
thead th{color:var(--soft);font-size:.8125rem;border-bottom:1px solid var(--rule);vertical-align:bottom}
tbody tr+tr>*{border-top:1px solid var(--rule)}
tbody tr:last-child>*{border-bottom:1px solid var(--rule)}
.left{text-align:left}.unbroken{white-space:nowrap}
td.left,th.left[scope=row]{white-space:normal;min-width:7rem}
.wide td.left,.wide th.left[scope=row]{min-width:13rem}
.pair{table-layout:fixed;width:100%}
.pair th:first-child{width:8.5rem;color:var(--soft);min-width:0}
.pair td{white-space:normal;min-width:0}
figure{margin:1rem 0 1.25rem}
figcaption{max-width:46rem;margin-top:.5rem}
.axis{margin:0 0 .375rem;max-width:none}
.axis.x{text-align:center;margin:1.75rem 0 0}
.plot{padding:.375rem .625rem 0 3.25rem}
.plot>svg{display:block;width:100%;height:14rem;overflow:visible}
.heat{padding-left:6.75rem}
svg text{font-size:.75rem;fill:var(--soft);font-variant-numeric:tabular-nums}
.grid{stroke:var(--rule);stroke-width:1;shape-rendering:crispEdges}
.heat .grid{display:none}
.stroke{fill:none;stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round;vector-effect:non-scaling-stroke}
.thin{stroke-width:1}.mean{stroke-width:2.5}
.line-b{stroke:var(--b)}.line-second{stroke:var(--second);stroke-dasharray:7 4}
.line-noise{stroke:var(--noise);stroke-dasharray:2 4}.line-noise.thin{stroke-dasharray:none}
.line-b.thin{opacity:.8}.line-noise.mean{stroke:var(--text);stroke-dasharray:2 5}.line-b.mean{stroke:var(--second)}
.dot.line-b{fill:var(--b)}.dot.line-second{fill:var(--second)}
.dot.line-noise{fill:var(--noise)}
.dot{stroke:none}
.worst{fill:var(--second)}
.boundary{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3;opacity:.6}
.fill-b{fill:var(--b)}.fill-noise{fill:var(--noise);opacity:.65}
.touch{fill:transparent}
.touch:hover{fill:var(--text);fill-opacity:.07}
.cell{stroke:var(--edge);stroke-width:1.5}
.cell:hover{stroke:var(--text)}
.cell-bytes{fill:var(--same)}.cell-values{fill:url(#hatch)}
.ground{fill:var(--same)}.hatch{stroke:var(--soft);stroke-width:1;fill:none}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;margin:0 0 .75rem;padding:0}
.legend li{display:flex;align-items:center;gap:.4rem;white-space:nowrap}
.key{display:flex;flex-wrap:wrap;gap:0 1.5rem;margin:0 0 .75rem}.key .legend{margin:0}
.ramp{width:100%;max-width:27rem;height:2.25rem;margin-top:.25rem}
.legend svg{width:1.25rem;height:.75rem;flex:none}
.notes{margin:.5rem 0 0;padding-left:1.125rem;max-width:46rem}
.notes li+li{margin-top:.375rem}
details{margin:.5rem 0 1rem}
summary{cursor:pointer;color:var(--b);font-size:.875rem}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);color:var(--soft);font-size:.8125rem}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:40rem){
  main{padding:1.5rem 1rem 2rem}
  .minor{display:none}
  .plot{padding-left:2.75rem}.heat{padding-left:6.25rem}
  .pair th:first-child{width:6.25rem}
  th,td{padding:.375rem .5rem}
  .cell{stroke-width:.75}
}
@media print{
  @page{margin:16mm 14mm}
  body{font-size:10pt}
  main{max-width:none;padding:0}
  section{margin-top:1.75rem}
  .scroll{overflow:visible;background:none}
  table{font-size:8pt}th,td{padding:.2rem .4rem}
  figure,.tiles,.verdict,.scroll,tr,h2{break-inside:avoid}h2,.lead,thead{break-after:avoid}
  thead th{font-size:8pt}
  *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""

STYLE_SHEET = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    f"{_RULES}{_CELLS}"
)
