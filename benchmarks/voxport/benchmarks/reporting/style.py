"""The style sheet of a report: light and dark by the reader's own setting, narrow screens, and print."""

_LIGHT = """--paper:#fbfaf8;--card:#fff;--ink:#1d1f23;--soft:#5d626b;--faint:#8a9099;--rule:#e4e2dd;--grid:#eceae6;
--band:#e9eef5;--accent:#1b5fa8;--good:#0b6b4f;--goodbg:#dff3ea;--bad:#a3321f;--badbg:#fbe5df;--unsure:#7a5a00;
--unsurebg:#fbf0cf;--neutral:#3f4a58;--neutralbg:#e8ebf0;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0568f;--c4:#b97f00;--c5:#2f8fc4;--cb:#4d5157;--cc:#a2a6ad"""
_DARK = """--paper:#15171b;--card:#1d2025;--ink:#eceef1;--soft:#a9b0ba;--faint:#7d8590;--rule:#30353c;--grid:#2a2e35;
--band:#26303e;--accent:#79b4f2;--good:#7fdcb8;--goodbg:#17382d;--bad:#ff9d88;--badbg:#43211b;--unsure:#f0cd70;
--unsurebg:#3a3113;--neutral:#c3cad4;--neutralbg:#2c323b;
--c0:#56b4e9;--c1:#ff8c42;--c2:#34c99a;--c3:#e39bc9;--c4:#f0b940;--c5:#8fd0f7;--cb:#b9bec6;--cc:#747b85"""

_BASE = """
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 28px}
header{padding-top:44px}header h1{font-size:15px;font-weight:600;letter-spacing:.02em;color:var(--soft);margin:0}
nav{margin:10px 0 0;font-size:14px}nav a{color:var(--accent);margin-right:18px;text-decoration:none}
.part{margin:34px 0 64px}.kicker{font-size:14px;color:var(--soft);margin:0 0 8px}
h2{font-size:32px;line-height:1.22;font-weight:650;letter-spacing:-.015em;margin:0 0 24px;max-width:26em;
text-wrap:balance}
h3{font-size:20px;font-weight:620;margin:44px 0 12px;letter-spacing:-.005em}
p{max-width:72ch;margin:0 0 12px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin:0 0 8px}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px 18px}
.tile b{display:block;font-size:27px;font-weight:650;letter-spacing:-.02em;line-height:1.2}
.tile span{display:block;font-size:14px;color:var(--ink);margin-top:4px}
.tile small{display:block;font-size:13px;color:var(--soft);line-height:1.4}
.tile.good b{color:var(--good)}.tile.bad b{color:var(--bad)}.tile.unsure b{color:var(--unsure)}
figure{background:var(--card);border:1px solid var(--rule);border-radius:10px;margin:0 0 18px;padding:18px 20px 16px}
figcaption{font-weight:620;font-size:15px;margin-bottom:10px}
.legend{font-size:13px;color:var(--soft);margin:12px 0 0;line-height:1.45;max-width:none}
.row{display:grid;grid-template-columns:minmax(120px,210px) 1fr 214px;gap:14px;align-items:center;min-height:28px}
.row .label{font-size:14px;overflow-wrap:anywhere;line-height:1.25}
.row .value{font-size:13.5px;display:flex;gap:8px;align-items:center;justify-content:space-between}
.row .value b{font-weight:550}
.group{font-weight:600;font-size:13.5px;color:var(--soft);margin:14px 0 2px}
.strip{width:100%;height:28px;display:block;overflow:visible}.ticks{width:100%;height:18px;overflow:visible}
.axis{min-height:18px;font-size:12px}.axis .label{color:var(--faint);font-size:12px}
svg text{fill:var(--soft);font-size:12px;font-family:inherit}
.grid{stroke:var(--grid);stroke-width:1}.band{fill:var(--band)}.ref{stroke:var(--faint);stroke-width:1.5}
.thick{stroke:currentColor;stroke-width:5;opacity:.55}.thin{stroke:currentColor;stroke-width:1.5;opacity:.75}
.dot{fill:currentColor;stroke:var(--card);stroke-width:1.5}
.dot.hollow{fill:var(--card);stroke:currentColor;stroke-width:2}
.dot.small{stroke-width:1}.dot.big{opacity:.95}
svg text.num{fill:var(--card);font-size:11px;font-weight:650}svg text.num.hollow{fill:currentColor}
.bar{fill:currentColor}.curve{fill:none;stroke:currentColor;stroke-width:2;vector-effect:non-scaling-stroke;
stroke-linejoin:round}.dashed{stroke-dasharray:5 4}.stretch{overflow:visible}
.plane{display:grid;grid-template:300px 22px/46px 1fr;column-gap:8px}
.yticks,.area{width:100%;height:300px;overflow:visible}
.xticks{grid-column:2;width:100%;height:20px;overflow:visible}
.yname,.xname{font-size:12.5px;color:var(--soft)}.yname{margin-bottom:8px}.xname{text-align:right}
.keys{display:flex;flex-wrap:wrap;gap:6px 18px;font-size:13px;margin:10px 0 0;color:var(--soft)}
.keys i{display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--c);margin-right:6px}
.linekeys,.numbers{list-style:none;margin:14px 0 0;padding:0;display:grid;gap:4px 26px;font-size:13.5px;
grid-template-columns:repeat(auto-fill,minmax(290px,1fr))}
.linekeys li,.numbers li{display:flex;gap:9px;align-items:center;color:inherit}
.linekeys span,.numbers span{color:var(--ink);overflow-wrap:anywhere}
.linekeys small,.numbers small{color:var(--soft);margin-left:auto;white-space:nowrap;font-size:12.5px}
.linekeys i{flex:none;width:22px;border-top:3px solid var(--c)}.linekeys i.dashed{border-top-style:dashed}
.numbers i{flex:none;width:19px;height:19px;border-radius:50%;background:var(--c);color:var(--card);font-style:normal;
font-size:11px;font-weight:650;display:grid;place-items:center}
.numbers i.hollow{background:none;color:var(--c);box-shadow:inset 0 0 0 2px var(--c)}
.card{margin:0 0 18px;border:1px solid var(--rule);border-radius:10px;background:var(--card);overflow:hidden}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
.caption{font-weight:620;font-size:15px;padding:14px 16px 6px}
th,td{padding:7px 8px;text-align:left;vertical-align:baseline;border-top:1px solid var(--rule)}
thead th{font-weight:550;color:var(--soft);font-size:13px;border-top:0;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}tbody tr td:first-child{min-width:8.5em;overflow-wrap:anywhere}
th:first-child,td:first-child{padding-left:16px}th:last-child,td:last-child{padding-right:16px}
td.w{min-width:16em}
.chip{display:inline-block;font-size:12px;font-weight:600;border-radius:99px;padding:1px 9px;white-space:nowrap;
background:var(--neutralbg);color:var(--neutral)}
.chip.good{background:var(--goodbg);color:var(--good)}.chip.bad{background:var(--badbg);color:var(--bad)}
.chip.unsure{background:var(--unsurebg);color:var(--unsure)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0 0 18px;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
ul.notes{margin:0 0 18px;padding-left:20px;max-width:84ch;font-size:14.5px}ul.notes li{margin:0 0 5px;
overflow-wrap:anywhere}
details{margin:14px 0}summary{cursor:pointer;font-weight:620;font-size:16px;padding:6px 0}
summary:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:4px}
footer{color:var(--soft);font-size:13px;padding-bottom:48px}
"""

_NARROW = """@media (max-width:720px){nav a{display:block;margin:0 0 4px}
main,header,footer{padding-left:16px;padding-right:16px}header{padding-top:24px}
h2{font-size:24px}h3{margin-top:34px}.tiles{grid-template-columns:1fr 1fr;gap:8px}.tile{padding:12px 14px}
.tile b{font-size:21px}
figure{padding:14px 14px 12px;margin-left:-4px;margin-right:-4px}
.row{grid-template-columns:1fr auto;gap:0 10px;margin-bottom:5px}.row .label{grid-area:1/1}
.row .value{grid-area:1/2}.row svg{grid-area:2/1/3/3}.strip{height:22px}.axis .label{grid-area:1/1/2/3}
.plane{grid-template:240px 22px/38px 1fr}.yticks,.area{height:240px}
.linekeys,.numbers{grid-template-columns:1fr}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}
th,td{padding:6px 10px}}"""

_PRINT = """@media print{body{background:#fff;font-size:11pt}main,header,footer{max-width:none;padding:0}
figure,.tile,tr,.row,dl{break-inside:avoid}h2,h3,.caption,summary{break-after:avoid}.card{overflow:visible}
.part+.part{break-before:page}
.scroll{overflow:visible}nav{display:none}table{font-size:9.5pt}th,td{padding:3px 6px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
details::details-content{content-visibility:visible;block-size:auto}}"""


def style_sheet() -> str:
    """All of it, one text."""
    series = "".join(f".{name}{{color:var(--{name});--c:var(--{name})}}" for name in "c0 c1 c2 c3 c4 c5 cb cc".split())
    label = ".row .label,.row .value b{color:var(--ink)}.axis .label{color:var(--faint)}"
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK};color-scheme:dark}}}}"
    return f":root{{{_LIGHT};color-scheme:light dark}}{dark}{_BASE}{series}{label}{_NARROW}{_PRINT}"
